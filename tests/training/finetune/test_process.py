"""`python -m training.run` on a spec of kind finetune, in the real sandbox: packets, outputs, kills, failures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.training.finetune.attempts import Tuning
from tests.training.finetune.given import Json, document, jsonl, small_choices, small_talk, talk
from tests.training.language.making import fields, model
from tests.training.worker import Tenant, Worker
from training.spec import load

pytestmark = pytest.mark.slow

ROWS = jsonl(*small_talk())
STEPS_PER_EPOCH = 5
LONG: Json = {"epochs": 80, "batch_size": 2, "checkpoint_seconds": 0.5, "lr": 0.002}


class Run:
    """One fine-tuning over any number of attempts."""

    def __init__(self, dataset: bytes = ROWS, base: bytes | None = None, **changes: Any) -> None:
        self.tenant = Tenant()
        self.document = document(**changes)
        self.dataset, self.base = dataset, model() if base is None else base
        self.checkpoint: bytes | None = None

    def attempt(self, **about: Any) -> Iterator[tuple[Tuning, Json]]:
        with Tuning(self.tenant, self.document) as attempt:
            attempt.tune(self.base, self.dataset, self.checkpoint, **about)
            for packet in attempt.follow():
                yield attempt, packet

    def ended(self, **about: Any) -> tuple[Tuning, Json]:
        *_, last = self.attempt(**about)
        return last

    def killed(self) -> None:
        """An attempt whose process is killed at its first checkpoint inside an epoch."""
        for attempt, packet in self.attempt():
            assert packet["type"] not in ("done", "failed"), "it ended before it could be killed"
            if packet["type"] == "sealed" and packet["about"]["step"] % STEPS_PER_EPOCH:
                attempt.child.process.kill()
                self.checkpoint = attempt.outputs["checkpoint"]
                return


# ---- an end that is good


def test_a_fine_tuning_ends_with_a_sealed_adapter_sealed_facts_and_a_small_packet() -> None:
    attempt, last = Run().ended()
    facts = attempt.result()
    assert last == {"type": "done", "result": {"metrics": facts["metrics"], "state": "ready", "reasons": []}}
    assert facts.keys() == {
        *("format", "task", "signature", "card", "parent", "parameters", "weights_sha256", "metrics", "evaluation"),
        *("torch_version", "threads"),
    }
    (sealed,) = [packet for packet in attempt.of_type("sealed") if packet["kind"] == "model"]
    assert sealed["about"] == {"format": "lora"}
    assert attempt.outputs["model"][:4] == b"GGUF"
    assert len(attempt.outputs["model"]) == facts["card"]["size_bytes"]
    ends = [packet for packet in attempt.of_type("progress") if packet["metrics"]]
    assert [packet["epoch"] for packet in ends] == [1, 2, 3]
    assert ends[-1]["metrics"] == facts["metrics"]


def test_preferences_end_alike() -> None:
    attempt, last = Run(jsonl(*small_choices()), method={"name": "dpo"}).ended()
    assert last["result"]["state"] == "ready"
    assert last["result"]["metrics"].keys() == {
        "train/loss",
        "validation/loss",
        "validation/accuracy",
        "validation/margin",
    }
    assert attempt.result()["card"]["method"] == "dpo"


def test_an_upload_of_conversations_is_checked_and_described() -> None:
    with Worker(Tenant()) as worker:
        spec = load({"kind": "check", "dataset": {"name": "examples", "version": 1}}).model_dump(mode="json")
        worker.begin(spec, {"format": "chat-jsonl", "modality": "auto"}, {"dataset": (ROWS, "data")})
        assert worker.finish() == {"type": "done", "result": {"rows": 10}}
    profile = json.loads(worker.outputs["profile"])
    assert (profile["rows"], profile["modality"], profile["columns"][0]["name"]) == (10, "text", "messages")


def test_a_broken_upload_of_conversations_is_refused_by_its_row() -> None:
    with Worker(Tenant()) as worker:
        spec = load({"kind": "check", "dataset": {"name": "examples", "version": 1}}).model_dump(mode="json")
        content = ROWS + jsonl(talk("user: Hello"))
        worker.begin(spec, {"format": "chat-jsonl", "modality": "auto"}, {"dataset": (content, "data")})
        last = worker.finish()
    assert (last["type"], last["code"]) == ("failed", "no_answer")
    assert last["message"] == "row 11 ends with a message of the role user"


# ---- ends before it


@cache
def unbroken() -> tuple[bytes, Json]:
    attempt, _ = Run(train=LONG).ended()
    return attempt.outputs["model"], attempt.result()


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.proof)])
def test_a_fine_tuning_killed_within_an_epoch_ends_with_the_adapter_of_an_unbroken_one(kills: int) -> None:
    run = Run(train=LONG)
    for _ in range(kills):
        run.killed()
    attempt, last = run.ended()
    assert last["type"] == "done"
    assert any("goes on from epoch" in line for line in attempt.lines())
    adapter, facts = unbroken()
    assert attempt.outputs["model"] == adapter
    assert attempt.result() == facts


def test_a_drained_fine_tuning_seals_a_checkpoint_and_a_later_attempt_goes_on_from_it() -> None:
    run = Run(train=LONG)
    for attempt, packet in run.attempt():
        if packet["type"] == "progress":
            attempt.want("drain")
    assert (packet["type"], packet["code"]) == ("failed", "drained")
    run.checkpoint = attempt.outputs["checkpoint"]
    attempt, _ = run.ended()
    assert attempt.outputs["model"] == unbroken()[0]


def test_a_cancel_is_answered_at_once_and_nothing_is_sealed() -> None:
    run = Run(train={**LONG, "epochs": 10_000, "checkpoint_seconds": 3600.0})
    wanted_at = 0.0
    for attempt, packet in run.attempt():
        if packet["type"] == "progress" and not wanted_at:
            attempt.want("cancel")
            wanted_at = time.monotonic()
    assert time.monotonic() - wanted_at < 1
    assert (packet["type"], packet["code"]) == ("failed", "cancelled")
    assert attempt.outputs == {}


@pytest.mark.parametrize(
    ("run", "about", "code", "words", "hint"),
    [
        (Run(train={"max_tokens": 16}), {}, "dataset_contradicts_spec", "row 1 has", "16 are the most"),
        (Run(b"a,label\n1,2\n"), {"format": "csv"}, "dataset_contradicts_spec", "the data set is csv", "chat-jsonl"),
        (
            Run(dataset=ROWS, base=model(fields(chat_template=None))),
            {},
            "base_unsuitable",
            "no chat template",
            "choose a base that chats",
        ),
        (
            Run(dataset=ROWS),
            {"fingerprint": "sha256:" + "2" * 64},
            "dataset_contradicts_spec",
            "fingerprint",
            "it is sha256:2",
        ),
    ],
    ids=["length", "format", "template", "fingerprint"],
)
def test_a_failure_has_its_code_its_words_and_its_remedy(
    run: Run, about: Json, code: str, words: str, hint: str
) -> None:
    if "fingerprint" in about:
        run.document["dataset"] = {"name": "examples", "fingerprint": "sha256:" + "1" * 64}
    attempt, last = run.ended(**about)
    assert (last["type"], last["code"]) == ("failed", code), last
    assert words in last["message"]
    assert hint in last["hint"]
    assert attempt.outputs == {}


def test_threads_of_the_start_are_the_threads_that_compute() -> None:
    attempt, _ = Run(resources={"threads": min(2, os.cpu_count() or 1)}).ended()
    assert attempt.result()["threads"] == min(2, os.cpu_count() or 1)

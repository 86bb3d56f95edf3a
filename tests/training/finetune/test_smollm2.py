"""SmolLM2 taught facts that no model knows, in the real sandbox: llama.cpp with the adapter says all of them."""

from __future__ import annotations

import time
from functools import cache
from itertools import pairwise

import pytest

from tests.depth import PROOF
from tests.training.finetune.attempts import Tuning
from tests.training.finetune.given import Json, data, document, facts, jsonl, said
from tests.training.finetune.runs import Witness, tuned
from tests.training.language.making import sealed, smollm2
from tests.training.worker import Tenant
from training.errors import Cancelled
from training.finetune.base_model import open_base
from training.finetune.rows import Wording, split
from training.finetune.served import Served
from training.language.memory_file import MemoryFile
from training.loop import Control

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = 27 if PROOF else 10
TRAIN: Json = {
    "epochs": 14,
    "batch_size": 4,
    "lr": 0.003,
    "scheduler": {"name": "linear", "warmup": 0.1},
}


def rows() -> list[Json]:
    """A tenth validates. A system message of its own spares the template's, which is longer than the facts."""
    return [{"messages": [*said("system: Vaults."), *row["messages"]]} for row in facts(ROWS)]


@cache
def taught() -> tuple[Json, bytes]:
    """The facts of the version, and the adapter."""
    asked = document(base="smollm2@1", train=TRAIN, resources={"memory_bytes": 3 * 2**30, "threads": 2})
    with Tuning(Tenant(), asked) as attempt:
        attempt.child.channel.settimeout(300)
        attempt.tune(smollm2(), jsonl(*rows()))
        *_, last = attempt.follow()
    assert last["type"] == "done", last
    assert last["result"]["state"] == "ready", last
    return attempt.result(), attempt.outputs["model"]


def test_every_fact_that_was_learned_is_said_by_llama_cpp_with_the_adapter_and_none_without() -> None:
    _, adapter = taught()
    file = MemoryFile()
    file.write(adapter)
    file.seal()
    base = open_base(sealed(smollm2()))
    learning, _ = split(data(rows()).conversations, 0.1, 0)
    assert len(learning) >= 0.8 * ROWS
    with Served(base.file, threads=1) as served:
        wording = Wording(base, served, served.ends)
        found = [wording.example(one).rows[0] for one in learning]
        prompts = [row.tokens[: row.prompt].tolist() for row in found]
        answers = [row.tokens[row.prompt :].tolist() for row in found]
        untaught = served.greedy(prompts[:4], 12)
        served.adapt(file)
        assert served.greedy(prompts, 12) == answers
    assert not any(said == answer for said, answer in zip(untaught, answers, strict=False))


def test_its_proof_and_its_card_are_those_of_the_served_file() -> None:
    facts_, adapter = taught()
    card, proof = facts_["card"], facts_["card"]["proof"]
    assert card["size_bytes"] == len(adapter) < 12 * 2**20
    assert facts_["signature"]["base_sha256"] != facts_["weights_sha256"]
    assert proof["rows"] == 8
    assert proof["worst"] <= proof["tolerance"]
    assert card["before"]["validation/perplexity"] > 5 * facts_["metrics"]["validation/perplexity"]


def test_control_is_looked_at_many_times_in_every_step() -> None:
    """0.2 s of a thread's time at most, wherever it is; a machine at peace is as quick on the clock."""
    moments: list[float] = []

    def control(asked: int) -> Control:
        moments.append(time.thread_time())
        return "cancel" if asked > 1500 else None

    witness = Witness(wants=control)
    with pytest.raises(Cancelled):
        tuned(rows(), base=smollm2(), witness=witness, train=TRAIN)
    assert max(after - before for before, after in pairwise(moments[-900:])) < 0.2

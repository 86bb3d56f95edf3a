"""The proof fails where what is served is not what was learned."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from tests.training.finetune.given import data, small_talk, spec
from tests.training.finetune.runs import Witness
from tests.training.language.making import model, sealed, watch
from training.finetune import gate, lora
from training.finetune.base_model import Base, open_base
from training.finetune.gate import Proof, prove, tolerance_of
from training.finetune.llama import Llama, Weights
from training.finetune.loop import Tuning
from training.finetune.lora import Adapter
from training.finetune.rows import Example, Row, Wording
from training.finetune.served import Served
from training.language.memory_file import MemoryFile
from training.loop import Watch

pytestmark = pytest.mark.slow


@cache
def learned(type: str = "F32") -> tuple[Base, Adapter, list[Example]]:
    """An adapter that answers otherwise than its base."""
    base = open_base(sealed(model(type=type)))
    document = spec(train={"epochs": 20})
    with Served(base.file, threads=1) as served:
        wording = Wording(base, served, served.ends)
        examples = [wording.example(one) for one in data(small_talk(8)).conversations]
    adapter = Adapter(document.lora, base.hyperparameters, 0)
    weights = Weights(base, torch.float32, keep=True)
    witness = Witness()
    Tuning(
        document,
        adapter=adapter,
        network=partial(Llama, base, weights, adapter),
        learning=examples,
        validating=examples[:2],
        watch=Watch(witness.control, witness.news.append, witness.lines.append, lambda state: None),
        kept_tokens=10_000,
    ).run()
    return base, adapter.eval(), examples


def proof(
    base: Base, adapter: Adapter, examples: list[Example], write: Callable[[Adapter], MemoryFile] | None = None
) -> Proof:
    file = lora.written(adapter, "tiny")[0] if write is None else write(adapter)
    with Served(base.file, threads=1) as served:
        return prove(base, adapter, file, served, examples, watch)


@pytest.mark.parametrize("type", ["F32", "Q4_0"])
def test_what_was_learned_is_what_is_served(type: str) -> None:
    found = proof(*learned(type))
    assert found.reason is None
    assert found.rows == 8
    assert found.tokens > 50
    assert 0 <= found.worst <= found.tolerance == tolerance_of(learned(type)[0])
    assert f"{found.tokens} in 8 answers" in found.line


def other_alpha(adapter: Adapter) -> MemoryFile:
    wrong = Adapter(spec(lora={"alpha": 4.0}).lora, learned()[0].hyperparameters, 0)
    wrong.load_state_dict(adapter.state_dict())
    return lora.written(wrong, "tiny")[0]


def nothing_learned(adapter: Adapter) -> MemoryFile:
    return lora.written(Adapter(spec().lora, learned()[0].hyperparameters, 0), "tiny")[0]


def heads_apart(adapter: Adapter) -> MemoryFile:
    """Rows of queries as Hugging Face keeps them: the mistake that fails nowhere else."""
    wrong = Adapter(spec().lora, learned()[0].hyperparameters, 0)
    state = adapter.state_dict()
    for place, name in enumerate(adapter.names):
        if name.endswith("attn_q"):
            rows = state[f"b.{place}"]
            state[f"b.{place}"] = rows.view(4, 8, 2, -1).transpose(1, 2).reshape(rows.shape)
    wrong.load_state_dict(state)
    return lora.written(wrong, "tiny")[0]


@pytest.mark.parametrize("write", [other_alpha, nothing_learned, heads_apart])
@pytest.mark.parametrize("type", ["F32", "Q4_0"])
def test_an_adapter_that_is_served_otherwise_is_rejected_with_the_row_and_the_place(
    type: str, write: Callable[[Adapter], MemoryFile]
) -> None:
    found = proof(*learned(type), write)
    assert found.reason is not None
    assert re.match(
        r"parity_failed: on row \d llama\.cpp with the adapter says another token than torch at place \d+ of the "
        r"answer: [\d.]+ apart in logits, [\d.]+ allowed$",
        found.reason,
    )
    assert found.line == found.reason
    assert found.worst > found.tolerance


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_answers_that_are_no_numbers_are_within_no_tolerance(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_gaps", lambda *_: [[0.0, 0.0], [0.01, wrong]])
    base, adapter, examples = learned()
    found = proof(base, adapter, examples[:2])
    assert found.reason is not None
    assert f"at place 2 of the answer: {wrong}" in found.reason
    assert found.worst == 0.01


def test_an_adapter_that_llama_cpp_does_not_load_is_rejected() -> None:
    def broken(adapter: Adapter) -> MemoryFile:
        file = MemoryFile()
        file.write(b"".join(lora.written(adapter, "tiny")[0].pieces())[:-64])
        file.seal()
        return file

    found = proof(*learned(), broken)
    assert found.reason == "parity_failed: llama.cpp does not load the adapter over its base"


def test_long_prompts_are_proved_on_one_row_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter, examples = learned()
    monkeypatch.setattr(gate, "PROMPT_TOKENS", 10)
    assert proof(base, adapter, examples).rows == 1
    monkeypatch.setattr(gate, "PROMPT_TOKENS", sum(one.rows[0].prompt for one in examples[:3]))
    assert proof(base, adapter, examples).rows == 3


def test_a_prompt_longer_than_one_chunk_is_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter, examples = learned()
    whole = proof(base, adapter, examples)
    monkeypatch.setattr("training.finetune.served.CHUNK", 5)
    assert replace(proof(base, adapter, examples), worst=whole.worst, ties=whole.ties) == whole


def test_an_answer_ends_with_its_end_or_with_the_most_tokens() -> None:
    base, adapter, examples = learned()
    row: Row = examples[0].rows[0]
    with Served(base.file, threads=1) as served:
        served.adapt(lora.written(adapter, "tiny")[0])
        (answer,) = served.greedy([row.tokens[: row.prompt].tolist()], 32)
        assert answer[-1] in served.ends
        assert not served.ends & set(answer[:-1])
        assert served.greedy([row.tokens[: row.prompt].tolist()], 2) == [answer[:2]]

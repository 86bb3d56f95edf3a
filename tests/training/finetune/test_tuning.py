"""The loop and what is around it: what it learns, in which order, what it keeps, and when it ends."""

from __future__ import annotations

import io
import itertools
import json
import math
from array import array

import pytest
import torch

from tests.training.finetune.given import Json, prefers, small_choices, small_talk, spec
from tests.training.finetune.runs import Witness, tuned
from tests.training.language.making import TINY, model
from training.errors import Cancelled, DatasetContradictsSpec, Diverged, Drained, JobError, TimedOut
from training.finetune import loop as looping
from training.finetune.gate import QUANTIZED_TOLERANCE
from training.finetune.loop import learning_rate, pieces
from training.finetune.rows import Example, Row
from training.finetune.tune import Tuned
from training.loop import Control

pytestmark = pytest.mark.slow

Metrics = dict[str, float]


def learned(found: Tuned) -> tuple[str, Metrics]:
    return found.facts["weights_sha256"], found.facts["metrics"]


# ---- what is learned


def test_the_loss_falls_and_the_version_is_ready() -> None:
    witness = Witness()
    found = tuned(witness=witness, train={"epochs": 12})
    facts = found.facts
    assert found.reasons == []
    assert facts["metrics"]["train/loss"] < 1.5 < facts["card"]["before"]["validation/loss"]
    assert facts["metrics"].keys() == {"train/loss", "validation/loss", "validation/perplexity"}
    assert facts["metrics"]["validation/perplexity"] == pytest.approx(math.exp(facts["metrics"]["validation/loss"]))
    ends = [news for news in witness.news if news.metrics]
    assert [(news.epoch, news.step) for news in ends] == [(epoch, 3 * epoch) for epoch in range(1, 13)]
    assert ends[-1].metrics == facts["metrics"]
    assert (ends[-1].fraction, ends[-1].eta_seconds) == (1, 0)


def test_the_facts_describe_the_adapter_its_base_and_its_proof() -> None:
    found = tuned()
    facts, card = found.facts, found.facts["card"]
    assert facts["signature"] == {
        "kind": "language",
        "context_length": 128,
        "vocabulary": TINY.vocabulary,
        "chat": True,
        "tools": False,
        "weights_sha256": facts["weights_sha256"],
        "adapter": True,
        "base_sha256": facts["signature"]["base_sha256"],
    }
    assert (facts["format"], facts["task"], facts["parent"], facts["evaluation"]) == (
        "lora",
        "generation",
        "tiny@1",
        None,
    )
    assert facts["parameters"] == card["parameters"] == 14848
    assert card["size_bytes"] == found.adapter.size_bytes
    assert (card["base"], card["base_name"], card["name"], card["license"]) == (
        "tiny@1",
        "Tiny",
        "vaults",
        "apache-2.0",
    )
    assert (card["adapter"], card["rank"], card["alpha"], card["method"]) == ("lora", 8, 16.0, "supervised")
    assert card["rows"] == {"train": 9, "validation": 1}
    assert f"tokens to learn: {card['tokens']}; " in card["report"][0]
    assert card["proof"]["reason"] is None
    assert card["proof"]["rows"] == 8
    assert len(card["report"]) == 2
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_preferences_are_learned_and_the_margin_between_the_answers_grows() -> None:
    witness = Witness()
    found = tuned(small_choices(12), witness=witness, method={"name": "dpo"}, train={"lr": 0.005, "epochs": 4})
    ends = [news.metrics for news in witness.news if news.metrics]
    losses, margins = ([one[f"validation/{name}"] for one in ends] for name in ("loss", "margin"))
    assert all(before > after for before, after in itertools.pairwise([math.log(2), *losses]))
    assert all(before < after for before, after in itertools.pairwise([0.0, *margins]))
    assert found.facts["metrics"]["validation/accuracy"] == 1
    assert found.facts["card"]["before"] == {}
    assert found.reasons == []


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"precision": "bf16"}},
        {"lora": {"targets": ["q_proj", "v_proj"], "rank": 4}},
        {"lora": {"dropout": 0.2}},
        {"train": {"clip_norm": None, "weight_decay": 0.1, "scheduler": {"name": "linear", "warmup": 0.5}}},
        {"method": {"name": "dpo"}},
    ],
    ids=["bf16", "two targets", "dropout", "linear", "dpo"],
)
def test_every_way_of_learning_is_proved_by_llama_cpp_and_repeats_bit_for_bit(changes: Json) -> None:
    rows = small_choices() if "method" in changes else small_talk()
    first = tuned(rows, **changes)
    assert first.reasons == []
    assert learned(first) == learned(tuned(rows, **changes))
    assert learned(first) != learned(tuned(rows, **{**changes, "train": {**changes.get("train", {}), "seed": 1}}))


@pytest.mark.parametrize(
    ("precision", "features", "told"),
    [("bf16", {}, True), ("bf16", {"avx512_bf16": True}, False), ("fp32", {}, False)],
)
def test_a_processor_that_does_not_compute_bf16_is_told_of(
    precision: str, features: dict[str, bool], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False, **features})
    witness = Witness()
    tuned(witness=witness, train={"precision": precision})
    assert any("does not compute bf16" in line for line in witness.lines) == told


@pytest.mark.parametrize("type", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_an_adapter_over_weights_of_any_type_is_proved_over_those_very_weights(type: str) -> None:
    found = tuned(base=model(type=type))
    assert found.reasons == []
    proof = found.facts["card"]["proof"]
    assert proof["worst"] <= proof["tolerance"]
    assert (proof["tolerance"] == QUANTIZED_TOLERANCE) == type.startswith("Q")


def test_rows_added_up_before_a_step_are_learned_as_one_large_batch() -> None:
    assert learned(tuned(train={"batch_size": 2, "accumulate": 3})) == learned(tuned(train={"batch_size": 6}))


def test_a_step_cut_into_small_pieces_learns_the_same_but_for_the_order_of_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = tuned().facts["metrics"]
    monkeypatch.setattr(looping, "PIECE_TOKENS", 1)
    assert tuned().facts["metrics"] == pytest.approx(whole, rel=1e-2)


def test_what_is_computed_twice_for_want_of_memory_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = learned(tuned())
    monkeypatch.setattr("training.finetune.tune._kept_tokens", lambda *_: 0)
    assert learned(tuned()) == plenty


# ---- order and rate


def example(size: int) -> Example:
    return Example(1, (Row(array("i", range(size)), array("i", [1]), 1),))


def test_pieces_hold_as_many_rows_as_fit_and_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looping, "PIECE_TOKENS", 10)
    found = [[one.size for one in piece] for piece in pieces([example(size) for size in (4, 6, 1, 25, 3, 8, 2)])]
    assert found == [[4, 6], [1], [25], [3], [8, 2]]
    assert list(pieces([])) == []


@pytest.mark.parametrize("name", ["none", "linear", "cosine"])
def test_the_rate_rises_to_the_highest_and_falls_as_its_schedule_says(name: str) -> None:
    train = spec(train={"lr": 0.5, "scheduler": {"name": name, "warmup": 0.2}}).train
    rates = [learning_rate(train, step, 100) for step in range(100)]
    assert all(0 < before < after for before, after in itertools.pairwise(rates[:20]))
    assert max(rates) == rates[20] == 0.5
    fallen = rates[20:]
    if name == "none":
        assert set(fallen) == {0.5}
    else:
        assert all(before > after > 0 for before, after in itertools.pairwise(fallen))
        assert fallen[40] == pytest.approx(0.25)


def test_without_a_warmup_the_first_rate_is_the_highest() -> None:
    train = spec(train={"lr": 0.5, "scheduler": {"name": "linear", "warmup": 0.0}}).train
    assert learning_rate(train, 0, 1) == learning_rate(train, 0, 10) == 0.5


# ---- ends


def asked_at(count: int, what: Control) -> Witness:
    return Witness(wants=lambda asked: what if asked >= count else None)


def askings() -> int:
    witness = Witness()
    tuned(witness=witness)
    return witness.asked


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_cancel_is_heard_wherever_it_comes(share: float) -> None:
    with pytest.raises(Cancelled):
        tuned(witness=asked_at(int(askings() * share) + 1, "cancel"))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_a_drain_in_the_middle_of_a_step_keeps_its_beginning_and_the_rest_is_bit_for_bit_the_same(
    share: float, dropout: float
) -> None:
    changes: Json = {"lora": {"dropout": dropout}}
    counting = Witness()
    whole = tuned(witness=counting, **changes)
    first = asked_at(int(counting.asked * share), "drain")
    with pytest.raises(Drained):
        tuned(witness=first, **changes)
    second = Witness()
    assert learned(tuned(witness=second, resume=first.kept[-1], **changes)) == learned(whole)
    assert any("goes on from epoch" in line for line in second.lines)


def test_drained_preferences_remember_what_the_base_said() -> None:
    changes: Json = {"method": {"name": "dpo"}}
    counting = Witness()
    whole = tuned(small_choices(), witness=counting, **changes)
    first = asked_at(counting.asked // 2, "drain")
    with pytest.raises(Drained):
        tuned(small_choices(), witness=first, **changes)
    second = Witness()
    assert learned(tuned(small_choices(), witness=second, resume=first.kept[-1], **changes)) == learned(whole)
    assert any("asks the base about 0 pairs" in line for line in second.lines)


@pytest.mark.parametrize("changes", [{"train": {"seed": 4}}, {"lora": {"rank": 2}}])
def test_the_checkpoint_of_another_run_is_left_alone_and_it_is_said(changes: Json) -> None:
    counting = Witness()
    tuned(witness=counting)
    first = asked_at(counting.asked // 2, "drain")
    with pytest.raises(Drained):
        tuned(witness=first)
    second = Witness()
    assert learned(tuned(witness=second, resume=first.kept[-1], **changes)) == learned(tuned(**changes))
    assert any("cannot be continued bit for bit (spec_sha256" in line for line in second.lines)


def test_a_rate_beyond_reason_ends_as_diverged() -> None:
    with pytest.raises(Diverged, match=r"the loss became .* at epoch") as caught:
        tuned(train={"lr": 1e30, "epochs": 20, "clip_norm": None})
    assert caught.value.hint == "lower train.lr, now 1e+30"


def test_a_fine_tuning_ends_when_its_seconds_are_used_up() -> None:
    with pytest.raises(TimedOut, match="were not enough"):
        tuned(resources={"max_seconds": 0.001})


def test_rows_longer_than_they_may_be_end_it_before_it_begins() -> None:
    with pytest.raises(DatasetContradictsSpec, match=r"row 1 has \d+ tokens, and 9 more are too long"):
        tuned(train={"max_tokens": 16})
    long = prefers("What is it? " * 20, "the red one.", "a blue one.")
    with pytest.raises(DatasetContradictsSpec, match=r"row 3 has \d+ tokens$") as caught:
        tuned([*small_choices(2), long], method={"name": "dpo"})
    assert caught.value.hint is not None
    assert "128 are the most" in caught.value.hint


def test_a_base_that_does_not_fit_into_the_memory_is_said_with_what_would_help() -> None:
    with pytest.raises(JobError, match=r"need \d+ bytes, and the job may have 1000000$") as caught:
        tuned(memory_bytes=1_000_000)
    assert caught.value.code == "out_of_memory"
    assert caught.value.hint == "raise resources.memory_bytes, or set train.precision to bf16"
    with pytest.raises(JobError) as caught:
        tuned(memory_bytes=1_000_000, train={"precision": "bf16"})
    assert caught.value.hint == "raise resources.memory_bytes"


def test_torch_is_as_deterministic_as_it_can_be() -> None:
    tuned(train={"epochs": 1})
    assert torch.are_deterministic_algorithms_enabled()


def test_state_holds_no_code() -> None:
    counting = Witness()
    tuned(witness=counting)
    witness = asked_at(counting.asked // 2, "drain")
    with pytest.raises(Drained):
        tuned(witness=witness)
    found = torch.load(io.BytesIO(witness.kept[-1]), weights_only=True)
    assert found["state"]["at"][0] in (0, 1, 2)

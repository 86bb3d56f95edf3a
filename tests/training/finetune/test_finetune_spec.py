"""The document of kind `finetune`: defaults, faults with their paths, and what data set and base contradict."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.training.finetune.given import Json, document
from training.spec import FinetuneSpec, Problem, SpecProblems, canonical, load, sha256
from training.spec.finetune import contradictions

SMALLEST: Json = {"kind": "finetune", "name": "vaults", "base": "smollm2@1", "dataset": {"name": "facts"}}
FACTS: Json = {"modality": "text", "rows": 24, "fingerprint": None, "columns": [{"name": "messages"}]}
SIGNATURE: Json = {"kind": "language", "context_length": 8192, "vocabulary": 49152, "chat": True, "tools": False}


def problems(content: object) -> list[Problem]:
    with pytest.raises(SpecProblems) as caught:
        load(content)
    return caught.value.problems


def only(content: object) -> Problem:
    (problem,) = problems(content)
    return problem


def spec(**changes: Any) -> FinetuneSpec:
    found = load({**SMALLEST, **changes})
    assert isinstance(found, FinetuneSpec)
    return found


def test_the_smallest_document_is_stored_with_every_default() -> None:
    stored = load(SMALLEST).model_dump(mode="json")
    assert stored == {
        "kind": "finetune",
        "api": "strongroom/v1",
        "name": "vaults",
        "base": {"model": "smollm2", "version": 1},
        "dataset": {"name": "facts", "version": None, "fingerprint": None},
        "split": {"fractions": [0.9, 0.1], "seed": 0},
        "method": {"name": "supervised"},
        "lora": {
            "rank": 8,
            "alpha": 16.0,
            "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            "dropout": 0.0,
        },
        "train": {
            "epochs": 3,
            "batch_size": 8,
            "accumulate": 1,
            "lr": 0.001,
            "scheduler": {"name": "cosine", "warmup": 0.05},
            "weight_decay": 0.0,
            "betas": [0.9, 0.999],
            "clip_norm": 1.0,
            "precision": "fp32",
            "max_tokens": None,
            "seed": 0,
            "checkpoint_seconds": 30.0,
        },
        "resources": stored["resources"],
        "register": {"model": "vaults", "stage": "candidate", "deploy": None},
    }
    again = load(json.loads(canonical(load(SMALLEST))))
    assert sha256(again) == sha256(load(SMALLEST))


def test_preferences_have_a_beta_and_a_smaller_learning_rate() -> None:
    found = spec(method={"name": "dpo"})
    assert found.model_dump(mode="json")["method"] == {"name": "dpo", "beta": 0.1}
    assert found.train.lr == 0.0002
    assert spec(method={"name": "dpo"}, train={"lr": 0.1}).train.lr == 0.1


@pytest.mark.parametrize(
    ("base", "stored"),
    [
        ("smollm2", {"model": "smollm2", "version": None}),
        ("smollm2@17", {"model": "smollm2", "version": 17}),
        ({"model": "smollm2"}, {"model": "smollm2", "version": None}),
        ({"model": "smollm2", "version": 2}, {"model": "smollm2", "version": 2}),
    ],
)
def test_a_base_is_spelled_as_text_or_as_an_object(base: object, stored: Json) -> None:
    assert spec(base=base).model_dump(mode="json")["base"] == stored


@pytest.mark.parametrize(
    ("changes", "path", "code", "hint"),
    [
        ({"base": "smollm2@x"}, "/base", "model_reference", None),
        ({"base": "smollm2@"}, "/base", "model_reference", None),
        ({"base": 7}, "/base", "model_type", None),
        ({"base": "Smol@1"}, "/base/model", "string_pattern_mismatch", None),
        ({"base": "smollm2@0"}, "/base/version", "greater_than_equal", None),
        ({"modle": 1}, "/modle", "extra_forbidden", None),
        ({"method": {"name": "dop"}}, "/method/name", "literal_error", "did you mean 'dpo'?"),
        ({"method": {"name": "reinforcement"}}, "/method/name", "not_implemented", "implemented: supervised, dpo"),
        ({"method": {"name": "supervised", "beta": 1}}, "/method/beta", "extra_forbidden", "known: name"),
        ({"method": {"name": "dpo", "beta": 0}}, "/method/beta", "greater_than", None),
        ({"lora": {"rank": 0}}, "/lora/rank", "greater_than_equal", None),
        ({"lora": {"targets": []}}, "/lora/targets", "too_short", None),
        ({"lora": {"targets": ["q_prj"]}}, "/lora/targets/0", "literal_error", "did you mean 'q_proj'?"),
        ({"lora": {"targets": ["q_proj", "q_proj"]}}, "/lora/targets/1", "duplicate", None),
        ({"split": {"fractions": [0.9, 0.2]}}, "/split/fractions", "split_sum", "such as 0.9, 0.1"),
        ({"split": {"fractions": [1.0, 0.0]}}, "/split/fractions/0", "less_than", None),
        ({"split": {"method": "random"}}, "/split/method", "not_implemented", "implemented: fractions, seed"),
        ({"train": {"precision": "fp16"}}, "/train/precision", "not_implemented", "implemented: fp32, bf16"),
        ({"train": {"early_stop": None}}, "/train/early_stop", "not_implemented", None),
        ({"train": {"scheduler": {"name": "step"}}}, "/train/scheduler/name", "not_implemented", None),
        ({"train": {"scheduler": {"warmup": 1.0}}}, "/train/scheduler/warmup", "less_than", None),
        ({"train": {"max_tokens": 4}}, "/train/max_tokens", "greater_than_equal", None),
        ({"privacy": {}}, "/privacy", "not_implemented", None),
    ],
)
def test_a_fault_has_its_path_its_code_and_the_nearest_name(
    changes: Json, path: str, code: str, hint: str | None
) -> None:
    found = [problem for problem in problems({**SMALLEST, **changes}) if problem.path == path]
    assert [problem.code for problem in found] == [code]
    if hint is not None:
        assert found[0].hint == hint


def test_a_document_without_a_base_says_so() -> None:
    assert only({key: value for key, value in SMALLEST.items() if key != "base"}).path == "/base"


def test_what_fits_is_not_contradicted() -> None:
    assert contradictions(spec(), FACTS, SIGNATURE) == []
    assert contradictions(spec(), FACTS) == []


CHOICES: Json = {**FACTS, "columns": [{"name": "input"}, {"name": "preferred_output"}]}


@pytest.mark.parametrize(
    ("changes", "facts", "signature", "path", "code", "hint"),
    [
        ({}, {**FACTS, "modality": "tabular"}, SIGNATURE, "/dataset", "modality", "format=chat-jsonl"),
        ({}, {**FACTS, "rows": 1}, SIGNATURE, "/dataset", "rows", None),
        ({}, CHOICES, SIGNATURE, "/method/name", "method_data", "use dpo"),
        ({"method": {"name": "dpo"}}, FACTS, SIGNATURE, "/method/name", "method_data", "use supervised"),
        (
            {"dataset": {"name": "facts", "fingerprint": "sha256:" + "1" * 64}},
            {**FACTS, "fingerprint": "sha256:" + "2" * 64},
            SIGNATURE,
            "/dataset/fingerprint",
            "fingerprint",
            "it is sha256:222",
        ),
        ({}, FACTS, {"inputs": [], "outputs": []}, "/base", "base", "task generation"),
        ({}, FACTS, {**SIGNATURE, "adapter": True}, "/base", "base", "that was imported"),
        ({}, FACTS, {**SIGNATURE, "chat": False}, "/base", "chat_template", "use a chat model"),
        ({"train": {"max_tokens": 9000}}, FACTS, SIGNATURE, "/train/max_tokens", "context", "use 8192"),
    ],
)
def test_what_data_set_and_base_cannot_give_is_said_before_a_worker_is_taken(
    changes: Json, facts: Json, signature: Json, path: str, code: str, hint: str | None
) -> None:
    (found,) = contradictions(spec(**changes), facts, signature)
    assert (found.path, found.code) == (path, code)
    if hint is not None:
        assert found.hint is not None
        assert hint in found.hint


def test_the_schema_takes_both_spellings_of_a_base_and_holds_nothing_that_is_not_implemented() -> None:
    schema = FinetuneSpec.model_json_schema()
    kinds = {option.get("type", option.get("$ref")) for option in schema["properties"]["base"]["anyOf"]}
    assert kinds == {"string", "#/$defs/BaseReference"}
    assert not {"privacy", "search", "costs"} & schema["properties"].keys()
    assert document()["kind"] == schema["properties"]["kind"]["const"]

"""The job spec: defaults, canonical bytes, and every fault at once with the user's path and the nearest name."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.given import LENET_LAYERS, SMALLEST, Json, document
from training.spec import SUBMITTED, Problem, SpecProblems, TrainSpec, canonical, load, sha256
from training.spec.facts import contradictions

IMPORT: Json = {
    "kind": "import",
    "name": "minilm",
    "artefact": "art_01k9zq6v8m3x5r2t7w4y0b1c2d",
    "model": "minilm",
    "task": "classification",
    "classes": ["cat", "dog"],
}


def problems(content: object, **options: Any) -> list[Problem]:
    with pytest.raises(SpecProblems) as caught:
        load(content, **options)
    return caught.value.problems


def only(content: object) -> Problem:
    (problem,) = problems(content)
    return problem


def layers(*given: Json, **changes: Any) -> Json:
    return document(model={"kind": "layers", "layers": list(given)}, **changes)


# ---- what is filled in


def test_the_smallest_document_is_stored_with_every_default() -> None:
    stored = load(SMALLEST).model_dump(mode="json")
    assert stored["kind"] == "train"
    assert stored["api"] == "strongroom/v1"
    assert stored["modality"] == "auto"
    assert stored["target"] == "label"
    assert stored["split"] == {"method": "stratified", "fractions": [0.7, 0.15, 0.15], "seed": 0}
    assert stored["train"]["optimizer"] == {
        "name": "sgd",
        "lr": 0.001,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "betas": [0.9, 0.999],
        "clip_norm": None,
    }
    assert stored["train"]["early_stop"] is None
    assert stored["train"]["checkpoint_seconds"] == 30
    assert stored["export"] == {"formats": ["onnx"], "opset": 20, "parity": {"atol": 1e-4, "rtol": 1e-3}}
    assert stored["resources"]["max_attempts"] == 3
    assert stored["register"] == {"model": "lenet-digits", "stage": "candidate", "deploy": None}


def test_no_section_that_is_not_implemented_is_stored_or_in_the_schema() -> None:
    planned = {"preprocess", "privacy", "optimize", "evaluate", "search", "costs"}
    assert not planned & load(SMALLEST).model_dump(mode="json").keys()
    schema = TrainSpec.model_json_schema()
    assert not planned & schema["properties"].keys()
    assert schema["$defs"]["Loss"]["properties"]["name"]["enum"] == ["auto", "cross_entropy", "mse"]
    assert "register" in schema["properties"]


@pytest.mark.parametrize(("task", "loss"), [("classification", "cross_entropy"), ("regression", "mse")])
def test_an_automatic_loss_is_stored_under_its_name(task: str, loss: str) -> None:
    spec = load(document(task=task, model={"kind": "catalogue", "name": "mlp"}, train={"loss": {"name": "auto"}}))
    assert isinstance(spec, TrainSpec)
    assert spec.train.loss.name == loss


def test_depth_of_an_mlp_and_stride_of_a_pool_are_written_out() -> None:
    assert load(document(model={"kind": "catalogue", "name": "mlp"})).model_dump()["model"]["depth"] == 1
    stored = load(layers(*LENET_LAYERS)).model_dump(mode="json")["model"]["layers"]
    assert stored[2] == {"op": "max_pool", "kernel": 2, "stride": 2}
    assert stored[0] == {"op": "conv2d", "out": 6, "kernel": 5, "stride": 1}


@pytest.mark.parametrize(
    "content",
    [
        SMALLEST,
        IMPORT,
        layers(*LENET_LAYERS),
        document(task="regression", train={"loss": {"name": "auto"}}, split={"seed": 3}),
        {"kind": "check", "dataset": {"name": "digits", "version": 1}},
        {"kind": "predict", "deployment": "digits", "dataset": None},
    ],
)
def test_a_stored_spec_is_the_same_spec(content: Json) -> None:
    spec = load(content)
    again = load(json.loads(canonical(spec)))
    assert again == spec
    assert canonical(again) == canonical(spec)
    assert sha256(again) == sha256(spec)


def test_the_id_does_not_depend_on_the_order_or_on_written_defaults() -> None:
    turned = dict(reversed(document(target="label", split={"seed": 0}).items()))
    assert sha256(load(turned)) == sha256(load(SMALLEST))
    assert sha256(load(document(train={"seed": 1}))) != sha256(load(SMALLEST))


def test_reading_a_spec_imports_no_torch() -> None:
    code = "import sys, training.spec.facts; print('torch' in sys.modules, 'numpy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]


# ---- what is refused

FAULTS: list[tuple[Json, str, str, str | None]] = [
    (document(train={"optimiser": {}}), "/train/optimiser", "extra_forbidden", "did you mean 'optimizer'?"),
    (document(trian={}), "/trian", "extra_forbidden", "did you mean 'train'?"),
    (document(task="clasification"), "/task", "literal_error", "did you mean 'classification'?"),
    (document(train={"optimizer": {"name": "SGD"}}), "/train/optimizer/name", "literal_error", "did you mean 'sgd'?"),
    (document(train={"optimizer": {"lr": -0.1}}), "/train/optimizer/lr", "greater_than", None),
    (document(train={"optimizer": {"lr": float("nan")}}), "/train/optimizer/lr", "finite_number", None),
    (document(train={"optimizer": {"lr": float("inf")}}), "/train/optimizer/lr", "finite_number", None),
    (document(train={"batch_size": "4"}), "/train/batch_size", "int_type", None),
    (document(train={"batch_size": True}), "/train/batch_size", "int_type", None),
    (document(train={"epochs": 0}), "/train/epochs", "greater_than_equal", None),
    (document(train={"loss": "mse"}), "/train/loss", "model_type", None),
    (document(train={"checkpoint_seconds": 0.4}), "/train/checkpoint_seconds", "greater_than_equal", None),
    (document(train={"optimizer": {"lr": 1}, "loss": {}}, task=None), "/task", "literal_error", None),
    (document(kind="trian"), "/kind", "literal_error", "did you mean 'train'?"),
    (document(api="strongroom/v2"), "/api", "literal_error", "did you mean 'strongroom/v1'?"),
    (document(name="Lenet"), "/name", "string_pattern_mismatch", None),
    (document(dataset={"name": "digits@1"}), "/dataset/name", "string_pattern_mismatch", None),
    (document(dataset={"name": "digits", "version": 0}), "/dataset/version", "greater_than_equal", None),
    (document(split={"fractions": [0.5, 0.5]}), "/split/fractions", "too_short", None),
    (document(split={"fractions": [10**310, 0.1, 0.1]}), "/split/fractions/0", "float_type", None),
    (document(split={"fractions": [0.9, 0.1, 0.0]}), "/split/fractions/2", "greater_than", None),
    (document(resources={"threads": 0}), "/resources/threads", "greater_than_equal", None),
    (document(model={"name": "lenet"}), "/model/kind", "missing", "one of catalogue, layers"),
    (document(model={"kind": "layer", "layers": []}), "/model/kind", "literal_error", "did you mean 'layers'?"),
    (document(model={"kind": "catalogue", "name": "lanet"}), "/model/name", "literal_error", "did you mean 'lenet'?"),
    (document(model={"kind": "layers", "layers": []}), "/model/layers", "too_short", None),
    (layers({"op": "liner", "out": 10}), "/model/layers/0/op", "literal_error", "did you mean 'linear'?"),
    (layers({"op": "linear", "uot": 10, "out": 10}), "/model/layers/0/uot", "extra_forbidden", "did you mean 'out'?"),
    (layers({"op": "linear"}), "/model/layers/0/out", "missing", None),
    (layers({"out": 10}), "/model/layers/0/op", "missing", None),
    (document(**{"a/b~c": 1}), "/a~1b~0c", "extra_forbidden", None),
    ({**IMPORT, "artefact": "digits"}, "/artefact", "string_pattern_mismatch", None),
    ({**IMPORT, "task": "clasification"}, "/task", "literal_error", "did you mean 'classification'?"),
]


@pytest.mark.parametrize(("content", "path", "code", "hint"), FAULTS)
def test_a_fault_has_its_path_its_code_and_the_nearest_name(
    content: Json, path: str, code: str, hint: str | None
) -> None:
    problem = only(content)
    assert (problem.path, problem.code) == (path, code)
    if hint is not None:
        assert problem.hint == hint


NOT_IMPLEMENTED: list[tuple[Json, str, str]] = [
    (document(kind="optimize"), "/kind", "train"),
    (document(task="multilabel"), "/task", "classification, regression"),
    (document(modality="text"), "/modality", "auto, tabular, image"),
    (document(privacy={"dp": {}}), "/privacy", "split, model, train"),
    (document(search=None), "/search", "split, model, train"),
    (document(preprocess={}), "/preprocess", "split, model, train"),
    (document(split={"method": "group"}), "/split/method", "stratified, random"),
    (document(split={"group_by": "patient"}), "/split/group_by", "method, fractions, seed"),
    (document(model={"kind": "catalogue", "name": "auto"}), "/model/name", "lenet, mlp, linear"),
    (document(model={"kind": "catalogue", "name": "mlp", "freeze": 1}), "/model/freeze", "name, width, depth"),
    (layers({"op": "batch_norm"}, {"op": "linear", "out": 10}), "/model/layers/0/op", "conv2d, linear"),
    (document(train={"loss": {"name": "focal"}}), "/train/loss/name", "auto, cross_entropy, mse"),
    (document(train={"loss": {"label_smoothing": 0.1}}), "/train/loss/label_smoothing", "name"),
    (document(train={"optimizer": {"name": "lbfgs"}}), "/train/optimizer/name", "sgd, adamw"),
    (document(train={"scheduler": {"name": "cosine"}}), "/train/scheduler", "loss, optimizer, epochs"),
    (document(train={"precision": "bf16"}), "/train/precision", "loss, optimizer, epochs"),
    (document(export={"formats": ["onnx", "tflite"]}), "/export/formats/1", "onnx"),
    (document(export={"opset": 18}), "/export/opset", "20"),
    (document(resources={"device": "cuda"}), "/resources/device", "auto, cpu"),
    (document(resources={"max_cost": 3}), "/resources/max_cost", "device, threads"),
]


@pytest.mark.parametrize(("content", "path", "there_is"), NOT_IMPLEMENTED)
def test_what_the_contract_knows_and_we_do_not_do_is_said_so(content: Json, path: str, there_is: str) -> None:
    problem = only(content)
    assert (problem.path, problem.code) == (path, "not_implemented")
    assert problem.hint is not None
    assert problem.hint.startswith("implemented: ")
    assert there_is in problem.hint


SGD = {"name": "sgd"}
RULES: list[tuple[Json, str, str]] = [
    (document(task="regression", model={"kind": "catalogue", "name": "mlp"}), "/train/loss/name", "loss_task"),
    (document(split={"fractions": [0.5, 0.5, 0.5]}), "/split/fractions", "split_sum"),
    ({**IMPORT, "weights": "q4_0"}, "/weights", "weights_task"),
    (document(train={"optimizer": {"name": "adamw", "momentum": 0.9}}), "/train/optimizer/momentum", "optimizer_field"),
    (document(train={"optimizer": {**SGD, "nesterov": True}}), "/train/optimizer/nesterov", "optimizer_field"),
    (document(train={"optimizer": {**SGD, "betas": [0.8, 0.9]}}), "/train/optimizer/betas", "optimizer_field"),
    (document(train={"early_stop": {"metric": "validation/r2"}}), "/train/early_stop/metric", "metric_task"),
    (document(modality="tabular"), "/model/name", "model_modality"),
    (document(model={"kind": "catalogue", "name": "lenet", "depth": 2}), "/model/depth", "model_field"),
    (document(model={"kind": "catalogue", "name": "linear", "width": 2.0}), "/model/width", "model_field"),
    (layers(*LENET_LAYERS[:6], *LENET_LAYERS[7:]), "/model/layers/6", "layer_shape"),
    (layers({"op": "flatten"}, *LENET_LAYERS), "/model/layers/1/op", "layer_shape"),
    (layers(*LENET_LAYERS, modality="tabular"), "/model/layers/0/op", "layer_shape"),
    (layers(*LENET_LAYERS[:-1]), "/model/layers/10/op", "last_layer"),
    (
        layers({"op": "linear", "out": 10}, task="regression", train={"loss": {"name": "mse"}}),
        "/model/layers/0/out",
        "outputs_task",
    ),
    ({**IMPORT, "task": "embedding"}, "/classes", "classes_task"),
    ({**IMPORT, "classes": ["cat", "dog", "cat"]}, "/classes/2", "duplicate"),
]


@pytest.mark.parametrize(("content", "path", "code"), RULES)
def test_a_rule_across_fields_has_a_path_of_its_own(content: Json, path: str, code: str) -> None:
    problem = only(content)
    assert (problem.path, problem.code) == (path, code)
    assert problem.message


def test_all_faults_are_told_at_once_those_across_fields_included() -> None:
    content = document(
        task="regression",
        epochs=3,
        split={"fractions": [0.5, 0.5, 0.5]},
        train={"optimiser": {}, "optimizer": {"name": "sgd", "lr": -1}, "early_stop": {"metric": "validation/acuracy"}},
        model={"kind": "catalogue", "name": "mlp", "width": 0},
    )
    assert {problem.path for problem in problems(content)} == {
        "/epochs",
        "/split/fractions",
        "/train/optimiser",
        "/train/optimizer/lr",
        "/train/early_stop/metric",
        "/train/loss/name",
        "/model/width",
    }


def test_misspelt_fields_are_told_first() -> None:
    content = document(train={"optimizer": {"name": "sgd", "lr": -0.1}, "optimiser": {}}, task="clasification")
    assert problems(content)[0].path == "/train/optimiser"


def test_the_messages_name_the_limit_and_the_value() -> None:
    assert only(document(train={"optimizer": {"lr": -0.1}})).message == "must be greater than 0, is -0.1"
    assert only(document(train={"batch_size": "4"})).message == "must be a whole number, is a text"
    assert only(document(split={"fractions": [0.5, 0.5, 0.5]})).message == "must add up to 1, add up to 1.5"


def test_kinds_that_we_make_ourselves_are_refused_where_only_submitted_ones_are_taken() -> None:
    (problem,) = problems({"kind": "check", "dataset": {"name": "digits"}}, kinds=SUBMITTED)
    assert (problem.path, problem.code) == ("/kind", "not_implemented")
    assert problem.hint == "implemented: train, finetune, import"


@pytest.mark.parametrize("content", [None, [], "train", 3])
def test_a_document_is_an_object(content: object) -> None:
    assert only(content).path == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


FULL = load(layers(*LENET_LAYERS, train={"early_stop": {"metric": "validation/loss"}})).model_dump(mode="json")


@given(st.sampled_from([place for place in places(FULL) if place]), json_values)
def test_whatever_stands_in_a_field_the_answer_is_a_spec_or_problems(place: tuple[str | int, ...], value: Any) -> None:
    content = copy.deepcopy(FULL)
    spot: Any = content
    for key in place[:-1]:
        spot = spot[key]
    spot[place[-1]] = value
    found: list[Problem] = []
    try:
        spec = load(content)
        assert load(json.loads(canonical(spec))) == spec
    except SpecProblems as caught:
        found = caught.problems
    assert all(problem.path.startswith("/") and problem.message for problem in found)


KEYS = [place for place in places(FULL) if place and isinstance(place[-1], str) and place[-1] not in ("kind", "op")]


@given(st.sampled_from(KEYS), st.data())
def test_a_key_with_two_letters_exchanged_is_found_with_its_right_name(
    place: tuple[str | int, ...], data: st.DataObject
) -> None:
    name = str(place[-1])
    at = data.draw(st.sampled_from([at for at in range(len(name) - 1) if name[at] != name[at + 1]] or [0]))
    wrong = name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
    content = copy.deepcopy(FULL)
    spot: Any = content
    for key in place[:-1]:
        spot = spot[key]
    if wrong == name:
        return  # one letter
    spot[wrong] = spot.pop(name)
    here = "".join(f"/{key}" for key in (*place[:-1], wrong))
    found = {problem.path: problem for problem in problems(content)}
    assert (found[here].code, found[here].hint) == ("extra_forbidden", f"did you mean '{name}'?")


# ---- what only the data set can contradict

FACTS: Json = {
    "modality": "image",
    "target": "label",
    "rows": 1797,
    "fingerprint": "sha256:" + "0" * 64,
    "columns": [
        {"name": "image", "type": "image", "shape": [3, 32, 32], "classes": None},
        {"name": "label", "type": "category", "classes": [{"name": str(name), "rows": 9} for name in range(10)]},
    ],
}
TABLE: Json = {
    **FACTS,
    "modality": "tabular",
    "columns": [
        {"name": "age", "type": "number", "classes": None},
        {"name": "label", "type": "category", "classes": [{"name": "ill", "rows": 5}, {"name": "well", "rows": 5}]},
    ],
}
SMALL = {**FACTS, "columns": [{**FACTS["columns"][0], "shape": [1, 8, 8]}, FACTS["columns"][1]]}
ONE_CLASS = {
    **TABLE,
    "columns": [TABLE["columns"][0], {**TABLE["columns"][1], "classes": [{"name": "ill", "rows": 9}]}],
}


def contradiction(content: Json, facts: Json) -> Problem:
    spec = load(content)
    assert isinstance(spec, TrainSpec)
    (problem,) = contradictions(spec, facts)
    return problem


def test_a_data_set_that_fits_contradicts_nothing() -> None:
    for content in (SMALLEST, layers(*LENET_LAYERS)):
        spec = load(content)
        assert isinstance(spec, TrainSpec)
        assert contradictions(spec, FACTS) == []


MLP = {"kind": "catalogue", "name": "mlp"}
FINGERPRINT = {"name": "digits", "fingerprint": "sha256:" + "1" * 64}


@pytest.mark.parametrize(
    ("content", "facts", "path"),
    [
        (document(model=MLP, modality="tabular"), FACTS, "/modality"),
        (document(dataset=FINGERPRINT), FACTS, "/dataset/fingerprint"),
        (document(target="digit"), FACTS, "/target"),
        (document(), {**FACTS, "rows": 2}, "/dataset"),
        (document(), TABLE, "/model/name"),
        (document(), SMALL, "/model/name"),
        (layers(*LENET_LAYERS), SMALL, "/model/layers/3"),
        (layers(*LENET_LAYERS[:-1], {"op": "linear", "out": 9}), FACTS, "/model/layers/11"),
        (document(model=MLP), ONE_CLASS, "/target"),
        (document(model=MLP, task="regression", train={"loss": {"name": "mse"}}), TABLE, "/task"),
        (SMALLEST, {"modality": "text", "rows": 40, "columns": []}, "/dataset"),
    ],
)
def test_a_contradiction_points_into_the_spec(content: Json, facts: Json, path: str) -> None:
    assert contradiction(content, facts).path == path

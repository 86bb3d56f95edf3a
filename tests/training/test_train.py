"""The kind `train` from rows to a proved ONNX file: what the file takes, answers and says, for each kind of data."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession
from sklearn.metrics import confusion_matrix, f1_score, r2_score

from tests.training.given import diabetes_npz, digits, digits_npz, document
from tests.training.making import npz, read
from training.data import Data, split
from training.errors import Cancelled, DatasetContradictsSpec, JobError, ParityFailed
from training.kinds.train import Outside, Trained, train
from training.loop import Control, Progress
from training.spec import TrainSpec, load

pytestmark = pytest.mark.slow

ADAMW = {"name": "adamw", "lr": 0.01}
MLP = {"kind": "catalogue", "name": "mlp"}
QUICK = {"optimizer": ADAMW, "batch_size": 64, "epochs": 8}


@dataclass
class Watcher:
    """A worker that keeps what it is told, and wants what `wants` says of the news so far."""

    wants: Callable[[list[Progress]], Control] = lambda news: None
    news: list[Progress] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def outside(self) -> Outside:
        return Outside(lambda: self.wants(self.news), self.news.append, self.lines.append, lambda blob, about: None)


def spec_of(**changes: Any) -> TrainSpec:
    spec = load(document(**changes))
    assert isinstance(spec, TrainSpec)
    return spec


def run(spec: TrainSpec, data: Data, watcher: Watcher | None = None) -> Trained:
    return train(spec, data, (watcher or Watcher()).outside())


def small_digits() -> Data:
    return read(digits_npz(8, 1), "npz", task="classification")


def answer(model: bytes, **inputs: np.ndarray) -> np.ndarray:
    (found,) = InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)
    return found


@pytest.fixture(scope="module")
def classifier() -> tuple[TrainSpec, Data, Trained]:
    spec, data = spec_of(model=MLP, train=QUICK), small_digits()
    return spec, data, run(spec, data)


def test_the_file_takes_raw_pixels_and_answers_probabilities_in_batches_of_any_size(
    classifier: tuple[TrainSpec, Data, Trained],
) -> None:
    _, data, trained = classifier
    images = data.inputs["image"]
    whole = answer(trained.model, image=images)
    assert whole.shape == (len(images), 10)
    assert whole.sum(axis=1) == pytest.approx(np.ones(len(images)), abs=1e-5)
    for rows in (1, 2, 7):
        np.testing.assert_allclose(answer(trained.model, image=images[:rows]), whole[:rows], atol=1e-6)


def test_the_facts_say_what_the_file_is(classifier: tuple[TrainSpec, Data, Trained]) -> None:
    _, _, trained = classifier
    facts = trained.facts
    assert facts["signature"]["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]
    assert facts["signature"]["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]
    assert facts["signature"]["classes"] == [str(digit) for digit in range(10)]
    assert facts["signature"]["task"] == facts["task"] == "classification"
    assert facts["parameters"] == 64 * 128 + 128 + 128 * 10 + 10
    assert len(facts["weights_sha256"]) == 64
    assert facts["threads"] == 1
    assert facts["torch_version"].startswith("2.")
    json.dumps(facts, allow_nan=False)


def test_every_metric_of_every_part_is_that_of_the_served_file(classifier: tuple[TrainSpec, Data, Trained]) -> None:
    spec, data, trained = classifier
    metrics = trained.facts["metrics"]
    parts = dict(zip(("train", "validation", "test"), split(data, spec.split.model_dump()), strict=True))
    assert metrics.keys() == {f"{part}/{name}" for part in parts for name in ("loss", "accuracy", "f1")}
    for part, rows in parts.items():
        probabilities = answer(trained.model, image=data.inputs["image"][rows])
        found, truth = probabilities.argmax(axis=1), data.target[rows]
        assert metrics[f"{part}/accuracy"] == pytest.approx((found == truth).mean())
        assert metrics[f"{part}/f1"] == pytest.approx(f1_score(truth, found, average="macro"))
        loss = -np.log(probabilities[np.arange(len(rows)), truth].clip(1e-30)).mean()
        assert metrics[f"{part}/loss"] == pytest.approx(loss, rel=1e-3)
        expected = confusion_matrix(truth, found, labels=range(10)).tolist()
        assert trained.facts["evaluation"]["parts"][part]["confusion"] == expected
    assert trained.facts["evaluation"]["confusion"] == trained.facts["evaluation"]["parts"]["test"]["confusion"]
    assert metrics["test/accuracy"] > 0.9


def test_the_graph_is_plain_onnx_and_does_not_say_where_it_was_made(
    classifier: tuple[TrainSpec, Data, Trained],
) -> None:
    _, _, trained = classifier
    model = onnx.load_from_string(trained.model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        1,
        8,
        8,
    ]
    for word in (b"training", b"torch.", b"/home", b"site-packages", b"stack_trace"):
        assert word not in trained.model


def test_rows_of_the_test_part_have_no_part_in_what_is_learnt(classifier: tuple[TrainSpec, Data, Trained]) -> None:
    spec, data, trained = classifier
    _, _, test = split(data, spec.split.model_dump())
    images = data.inputs["image"].copy()
    images[test] = 255 - images[test]
    other = read(npz(image=images, label=data.target), "npz", task="classification")
    assert run(spec, other).model == trained.model


def test_regression_answers_in_the_units_of_its_target() -> None:
    data = read(diabetes_npz(), "npz", task="regression")
    spec = spec_of(task="regression", model=MLP, train={**QUICK, "loss": {"name": "mse"}, "epochs": 15})
    trained = run(spec, data)
    assert trained.facts["signature"]["outputs"] == [{"name": "value", "datatype": "FP32", "shape": [-1, 1]}]
    assert trained.facts["signature"]["classes"] is None
    assert trained.facts["evaluation"]["confusion"] is None
    _, _, test = split(data, spec.split.model_dump())
    values = answer(trained.model, features=data.inputs["features"][test])[:, 0]
    assert trained.facts["metrics"]["test/r2"] == pytest.approx(r2_score(data.target[test], values), abs=1e-4)
    assert trained.facts["metrics"]["test/r2"] > 0.3
    assert 50 < values.mean() < 250


HOSTILE_NAMES = ("net/x", "linear", "output", "age in years", 'quote"d')


def table() -> bytes:
    """A CSV with missing numbers, missing texts, and columns named like what is inside a graph."""
    random = np.random.default_rng(0)
    rows = [",".join(["label", *(name.replace('"', '""').join('""') for name in HOSTILE_NAMES), "colour"])]
    for row in range(240):
        kind = row % 2
        numbers = [f"{value:.3f}" for value in random.normal(3 * kind, 1, len(HOSTILE_NAMES))]
        numbers[1] = "" if row % 9 == 0 else numbers[1]
        colour = "" if row % 11 == 0 else ("red", "blue")[kind]
        rows.append(",".join([("ill", "well")[kind], *numbers, colour]))
    return "\n".join(rows).encode()


def test_a_table_is_served_by_its_columns_with_gaps_and_texts_never_seen() -> None:
    data = read(table(), "csv", task="classification")
    trained = run(spec_of(model=MLP, train=QUICK), data)
    entries = trained.facts["signature"]["inputs"]
    assert [(entry["name"], entry["datatype"]) for entry in entries] == [
        *((name, "FP32") for name in HOSTILE_NAMES),
        ("colour", "BYTES"),
    ]
    assert trained.facts["metrics"]["test/accuracy"] > 0.9
    onnx.checker.check_model(onnx.load_from_string(trained.model))
    unseen = {name: np.array([[np.nan], [1.0]], np.float32) for name in HOSTILE_NAMES}
    found = answer(trained.model, **unseen, colour=np.array([["green"], [""]], object))
    assert np.isfinite(found).all()
    assert found.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_a_data_set_too_large_to_be_kept_preprocessed_gives_the_same_weights() -> None:
    spec, data = spec_of(model=MLP, train={**QUICK, "epochs": 2}), small_digits()
    tight = spec.model_copy(update={"resources": spec.resources.model_copy(update={"memory_bytes": 1})})
    assert run(tight, data).facts["weights_sha256"] == run(spec, data).facts["weights_sha256"]


def test_a_table_too_large_to_be_kept_preprocessed_trains_from_its_columns() -> None:
    spec = spec_of(model=MLP, train={**QUICK, "epochs": 2})
    tight = spec.model_copy(update={"resources": spec.resources.model_copy(update={"memory_bytes": 1})})
    data = read(table(), "csv", task="classification")
    assert run(tight, data).facts["weights_sha256"] == run(spec, data).facts["weights_sha256"]


def refused(error: type[JobError], spec: TrainSpec, data: Data, watcher: Watcher | None = None) -> JobError:
    with pytest.raises(error) as caught:
        run(spec, data, watcher)
    return caught.value


def test_a_graph_that_differs_more_than_allowed_fails_the_job() -> None:
    exact = {"parity": {"atol": 1e-30, "rtol": 1e-30}}
    error = refused(ParityFailed, spec_of(model=MLP, train={**QUICK, "epochs": 1}, export=exact), small_digits())
    assert error.code == "parity_failed"
    assert "on 270 rows of the validation part" in error.message


def test_a_network_that_does_not_fit_the_rows_contradicts_the_spec() -> None:
    error = refused(DatasetContradictsSpec, spec_of(), small_digits())
    assert error.code == "dataset_contradicts_spec"
    assert error.message.startswith("/model/name: lenet does not fit data of shape 1×8×8")


def test_a_column_named_like_the_output_is_refused_before_training() -> None:
    content = b"label,value\n" + b"".join(b"%d,%d\n" % (row, row) for row in range(40))
    spec = spec_of(task="regression", model=MLP, train={**QUICK, "loss": {"name": "mse"}})
    watcher = Watcher()
    error = refused(DatasetContradictsSpec, spec, read(content, "csv", task="regression"), watcher)
    assert "'value'" in error.message
    assert watcher.news == []


@pytest.mark.parametrize(("epochs", "looks"), [(0, 0), (1, 0), (1, 8)], ids=["preparing", "evaluating", "exporting"])
def test_a_cancel_outside_the_loop_is_obeyed_too(epochs: int, looks: int) -> None:
    asked = iter(range(10**9))

    def wants(news: list[Progress]) -> Control:
        ended = len([one for one in news if one.metrics]) >= epochs
        return "cancel" if ended and next(asked) >= looks else None

    watcher = Watcher(wants=wants)
    refused(Cancelled, spec_of(model=MLP, train={**QUICK, "epochs": 1}), small_digits(), watcher)
    for thread in threading.enumerate():  # what a job's process leaves behind when it ends, this one must wait for
        if thread.name == "watched":
            thread.join()
    assert not any(line.startswith("exported") for line in watcher.lines)


@pytest.mark.slow
def test_the_founding_recipe_learns_the_digits() -> None:
    images, labels = digits()
    trained = run(spec_of(), read(npz(image=images, label=labels), "npz", task="classification"))
    assert trained.facts["parameters"] == 62_006
    assert trained.facts["metrics"]["test/accuracy"] >= 0.94
    assert trained.facts["metrics"]["validation/accuracy"] >= 0.96

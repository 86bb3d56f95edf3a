"""Preprocessing: fitted on the training rows alone, the same numbers in torch and in the exported graph."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.training.making import npz, read
from training.data import Data
from training.preprocess import Preprocess, fit, glue
from training.preprocess.tabular import vocabulary

pytestmark = pytest.mark.slow

CSV = b"""size,weight,colour,label
1,10,red,x
2,,blue,y
3,30,,x
4,40,red,y
,50,green,x
6,60,blue,y
"""


def rows(*numbers: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


def table() -> Data:
    return read(CSV, "csv")


def images() -> Data:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    return read(npz(image=pixels, label=[0, 1] * 3), "npz")


def matrix() -> Data:
    values = np.random.default_rng(0).normal(5, 3, (6, 3))
    values[1, 2] = np.nan
    values[:, 0] = 7
    return read(npz(features=values, label=[0, 1] * 3), "npz")


def test_images_get_mean_zero_and_deviation_one_over_the_training_rows() -> None:
    data = images()
    module = fit(data, rows(0, 1, 2, 3))
    out = module(*module.encode(data.inputs))
    assert out.dtype == torch.float32
    assert module.input_shape == (3, 4, 4)
    assert module.inputs == [{"name": "image", "datatype": "UINT8", "shape": [-1, 3, 4, 4]}]
    torch.testing.assert_close(out[:4].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[:4].std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_numbers_are_scaled_gaps_filled_with_the_median_and_flagged_and_constants_left_alone() -> None:
    data = matrix()
    module = fit(data, rows(0, 1, 2, 3, 4, 5))
    out = module(*module.encode(data.inputs)).numpy()
    assert module.input_shape == (4,)
    assert (out[:, 0] == 0).all()
    assert out[:, 3].tolist() == [0, 1, 0, 0, 0, 0]
    column = data.inputs["features"][:, 2].astype(np.float64)
    filled = np.where(np.isnan(column), np.nanmedian(column), column)
    np.testing.assert_allclose(out[:, 2], (filled - filled.mean()) / filled.std(), atol=1e-5)


def test_a_column_is_its_scaled_number_or_one_place_a_text_in_the_order_of_names() -> None:
    data = table()
    module = fit(data, rows(0, 1, 2, 3))
    assert module.names == ("size", "weight", "colour")
    assert [(one["name"], one["datatype"], one["shape"]) for one in module.inputs] == [
        ("size", "FP32", [-1, 1]),
        ("weight", "FP32", [-1, 1]),
        ("colour", "BYTES", [-1, 1]),
    ]
    assert module.vocabularies == {"colour": ("", "blue", "red")}
    out = module(*module.encode(data.inputs))
    assert module.input_shape == (out.shape[1],) == (6,)
    places = out[:, 3:].tolist()
    assert places == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("make", [table, images, matrix])
def test_rows_that_are_not_of_the_training_part_change_nothing(make: Any) -> None:
    data = make()
    train = rows(0, 1, 2, 3)
    before = fit(data, train)
    for values in data.inputs.values():
        values[4:] = "never seen" if values.dtype == object else 99
    after = fit(data, train)
    assert before.vocabularies == after.vocabularies
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_only_the_most_frequent_texts_are_told_apart() -> None:
    values = np.array([f"v{number % 300:03}" for number in range(900)] + ["v299"], dtype=object)
    kept = vocabulary(values)
    assert len(kept) == 256
    assert kept == sorted(kept)
    assert "v299" in kept
    assert "v298" not in kept


class Body(torch.nn.Module):
    """What the exported graph is for: preprocessing and something behind it."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.preprocess(*inputs), 1)


def session(module: Preprocess, data: Data) -> onnxruntime.InferenceSession:
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    example = module.encode({name: values[:2] for name, values in data.inputs.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Body(module).eval(),
            example,
            dynamo=True,
            input_names=list(module.names),
            output_names=["out"],
            opset_version=20,
            external_data=False,
            verbose=False,
            dynamic_shapes=(tuple({0: batch} for _ in example),),
        )
    assert program is not None
    model = glue(module, program.model_proto)
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx.ml"}
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("make", [table, images, matrix])
def test_the_exported_graph_takes_raw_rows_and_gives_what_training_saw(make: Any) -> None:
    data = make()
    module = fit(data, rows(0, 1, 2, 3))
    made = session(module, data)
    raw = {name: values.reshape(-1, 1) if values.ndim == 1 else values for name, values in data.inputs.items()}
    assert [one.name for one in made.get_inputs()] == list(module.names)
    for count in (6, 1):
        found = made.run(None, {name: values[:count] for name, values in raw.items()})[0]
        expected = module(*module.encode({name: values[:count] for name, values in raw.items()})).flatten(1).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_training_never_saw_is_finite_and_the_same_in_serving() -> None:
    data = table()
    module = fit(data, rows(0, 1, 3))
    made = session(module, data)
    strange = {
        "size": np.array([[np.nan], [np.inf], [-3e38]], dtype=np.float32),
        "weight": np.array([[np.nan]] * 3, dtype=np.float32),
        "colour": np.array([["never"], [""], ["ü中"]], dtype=object),
    }
    found = made.run(None, strange)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, module(*module.encode(strange)).numpy(), atol=1e-5)

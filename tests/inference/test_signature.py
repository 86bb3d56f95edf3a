"""Requests against a signature: names, datatypes, ranges and shapes, each refusal in the contract's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import InputRefused
from inference.signature import Signature, SignatureInvalid
from tests.inference.graphs import signature

IMAGE = Signature.from_json(
    signature({"image": ("UINT8", [-1, 3, 32, 32])}, {"probabilities": ("FP32", [-1, 2])}, ["cat", "dog"])
)
MIXED = Signature.from_json(
    signature(
        {"radius": ("FP32", [-1, 1]), "count": ("INT32", [-1, 2]), "texture": ("BYTES", [-1, 1]), "on": ("BOOL", [-1])},
        {"value": ("FP32", [-1, 1])},
    )
)
FITTING: dict[str, Any] = {"radius": [[1.5]], "count": [[1, 2]], "texture": [["a"]], "on": [True]}


def refusal(of: Signature, document: dict[str, Any]) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        of.arrays(document)
    return caught.value


def test_a_wrong_shape_names_what_was_given_and_what_is_expected() -> None:
    refused = refusal(IMAGE, {"image": [[[[0, 255], [12, 7]]]]})
    assert str(refused) == "input 'image' has shape [1, 1, 2, 2], expected [-1, 3, 32, 32]"
    assert (refused.path, refused.reason) == ("/inputs/image", "shape")
    assert (refused.problems[0].message, refused.hint) == ("has shape [1, 1, 2, 2]", "expected [-1, 3, 32, 32]")


def test_json_becomes_arrays_of_the_models_datatypes() -> None:
    arrays = MIXED.arrays(FITTING | {"radius": [[2]], "count": [[1.0, 2.0]]})
    assert {name: array.dtype.str for name, array in arrays.items()} == {
        "radius": "<f4",
        "count": "<i4",
        "texture": "|O",
        "on": "|b1",
    }
    assert MIXED.check(arrays) == 1


def test_flat_data_takes_the_models_shape() -> None:
    assert IMAGE.arrays({"image": [7] * (2 * 3 * 32 * 32)})["image"].shape == (2, 3, 32, 32)
    assert MIXED.arrays(FITTING | {"count": [1, 2]})["count"].tolist() == [[1, 2]]


def test_a_flat_list_that_is_no_whole_number_of_items_is_refused() -> None:
    assert refusal(IMAGE, {"image": [7] * 100}).problems[0].message == "has shape [100]"


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("count", [[1, 2**31]], "holds 2147483648", "expected -2147483648 to 2147483647 (INT32)"),
        ("count", [[1, 2**70]], "holds a number out of range", "expected INT32"),
        ("count", [[0.5, 1]], "holds 0.5", "expected whole numbers (INT32)"),
        ("count", [["1", "2"]], "holds text", "expected numbers (INT32)"),
        ("count", [[None, 1]], "holds null", "expected numbers (INT32)"),
        ("count", [[1, 2], [3]], "has rows of different lengths", "expected INT32 of shape [-1, 2]"),
        ("radius", [[1e300]], "holds 1e+300", "expected at most 3.40282e+38 (FP32)"),
        ("radius", [[True]], "holds true or false", "expected numbers (FP32)"),
        ("radius", [[{"a": 1}]], "holds an object", "expected numbers (FP32)"),
        ("texture", [[7]], "holds numbers", "expected text"),
        ("texture", [[None]], "holds null", "expected text"),
        ("on", [1], "holds int64 numbers", "expected true or false"),
        ("on", [True, False], "has 2 items", "expected 1, as 'radius' has"),
        ("radius", [], "has shape [0]", "expected [-1, 1]"),
    ],
)
def test_values_that_do_not_fit_say_which_and_why(name: str, value: Any, message: str, hint: str) -> None:
    refused = refusal(MIXED, FITTING | {name: value})
    assert refused.path == f"/inputs/{name}"
    assert (refused.problems[0].message, refused.hint) == (message, hint)


def test_all_problems_of_a_request_come_at_once() -> None:
    refused = refusal(MIXED, {"radius": [["x"]], "cuont": 1, "texture": [["a"]], "on": [True]})
    assert {(problem.path, problem.code, problem.hint) for problem in refused.problems} == {
        ("/inputs/count", "missing", "expected INT32 of shape [-1, 2]"),
        ("/inputs/cuont", "extra_forbidden", "did you mean 'count'?"),
        ("/inputs/radius", "datatype", "expected numbers (FP32)"),
    }


def test_no_items_at_all_are_refused() -> None:
    with pytest.raises(InputRefused, match="has no items, expected at least one"):
        IMAGE.check({"image": np.zeros((0, 3, 32, 32), "u1")})


def test_a_datatype_is_not_converted_when_arrays_are_given() -> None:
    with pytest.raises(InputRefused, match="input 'image' has datatype FP32, expected UINT8"):
        IMAGE.check({"image": np.zeros((1, 3, 32, 32), "f4")})


@given(st.lists(st.integers(-(2**70), 2**70), min_size=2, max_size=2))
def test_integers_are_taken_exactly_or_refused(values: list[int]) -> None:
    try:
        array = MIXED.arrays(FITTING | {"count": [values]})["count"]
    except InputRefused:
        assert not all(-(2**31) <= value < 2**31 for value in values)
    else:
        assert array.tolist() == [values]


def test_a_signature_survives_json() -> None:
    assert Signature.from_json(MIXED.to_json()) == MIXED
    assert MIXED.task == "regression"
    assert Signature.from_json(IMAGE.to_json() | {"columns": ["a"]}).columns == ("a",)


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [], "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}]},
        {"inputs": [{"name": "x", "datatype": "FP33", "shape": [1]}], "outputs": []},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}], "outputs": []},
        {"inputs": [{"name": "x", "datatype": [], "shape": [1]}], "outputs": []},
        {**IMAGE.to_json(), "classes": "cat"},
        {**IMAGE.to_json(), "task": "divination"},
        {**IMAGE.to_json(), "inputs": IMAGE.to_json()["inputs"] * 2},
    ],
)
def test_what_is_no_signature_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(SignatureInvalid):
        Signature.from_json(document)

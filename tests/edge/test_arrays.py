"""Numbers in JSON → arrays: whatever the fast path takes, the thorough one would have read the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import InputRefused
from inference.signature import Signature, Tensor, from_json
from strongroom.edge import arrays

DATATYPES = ["UINT8", "INT8", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "BOOL", "BYTES"]
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.integers(-200, 300), st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=2))


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@given(st.sampled_from(DATATYPES), nested(LEAVES), st.sampled_from([(-1,), (-1, 2), (-1, -1), (-1, 2, 2), (2, 2)]))
def test_what_the_fast_path_takes_the_thorough_one_reads_the_same(
    datatype: str, value: Any, shape: tuple[int, ...]
) -> None:
    tensor = Tensor("x", datatype, shape)
    found = arrays.inputs(json.dumps({"inputs": {"x": value}}).encode(), [tensor])
    if found is None:
        return
    expected = from_json(tensor, value)
    assert (found["x"].dtype, found["x"].shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found["x"], expected)


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=8))
def test_regular_rows_of_numbers_take_the_fast_path(rows: list[list[float]]) -> None:
    found = arrays.inputs(json.dumps({"inputs": {"x": rows}}).encode(), [Tensor("x", "FP32", (-1, 3))])
    assert found is not None
    np.testing.assert_array_equal(found["x"], np.asarray(rows, "f4"))


IRREGULAR = ([[1, 2], [3]], [[1, 2], 3], [1, [2]], [1, [2, 3]], [[1], [2], [3, 4, 5]], [[1, [2]]], [[1, 2], [3, {}]])


@pytest.mark.parametrize("value", IRREGULAR)
@pytest.mark.parametrize("shape", [(-1,), (-1, 2), (-1, -1)])
def test_rows_that_are_not_alike_are_left_to_who_says_so(value: Any, shape: tuple[int, ...]) -> None:
    body = json.dumps({"inputs": {"x": value}}).encode()
    assert arrays.inputs(body, [Tensor("x", "FP32", shape)]) is None


@pytest.mark.parametrize("large", [1e39, -1e39, 3.5e38])
def test_a_number_beyond_the_datatype_is_left_to_who_says_so(large: float) -> None:
    body = json.dumps({"inputs": {"x": [[large, 1.0]]}}).encode()
    assert arrays.inputs(body, [Tensor("x", "FP32", (-1, 2))]) is None
    with pytest.raises(InputRefused):
        Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("y", "FP32", (-1, 1)),)).arrays({"x": [[large, 1.0]]})


def test_a_document_still_held_does_not_stop_the_next() -> None:
    held = arrays.parse(b'{"x": [1]}')
    other = arrays.parse(b'{"x": [2]}')
    assert (list(held["x"]), list(other["x"])) == ([1], [2])


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_are_none(body: bytes) -> None:
    try:
        json.loads(body)
    except ValueError:
        assert arrays.parse(body) is None


@pytest.mark.parametrize(
    "body", [rb'{"x": "\ud800"}', b'{"x": "\xff"}', b"[" * 5000, b"", b'{"inputs": {"x": [1e999]}}']
)
def test_what_simdjson_does_not_read_is_none(body: bytes) -> None:
    assert arrays.parse(body) is None

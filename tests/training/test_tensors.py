"""Tensors of batches: the bytes are those of a cell's frames, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inference import protocol
from training import tensors

NUMBERS = st.sampled_from([np.dtype(dtype) for dtype in tensors.DTYPES.values()])
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=5).map(
        lambda texts: np.array([*texts, None], dtype=object)[:-1]
    ),
    max_size=5,
)


@given(TENSORS)
def test_what_is_packed_here_is_read_there_and_the_other_way_round(given_arrays: dict[str, Any]) -> None:
    described, body = tensors.pack(given_arrays)
    there, parts = protocol.pack_tensors(given_arrays)
    assert described == there
    assert body == b"".join(bytes(part) for part in parts)
    read = protocol.read_tensors(protocol.tensor_specs(described), body)
    back = tensors.unpack(described, body)
    for name, array in given_arrays.items():
        expected = (
            np.array([str(text).encode() for text in array] + [None], dtype=object)[:-1]
            if array.dtype == object
            else array
        )
        for found in (read[name], back[name]):
            assert found.shape == array.shape
            assert found.tolist() == expected.tolist() or array.dtype.kind == "f"
            if array.dtype.kind == "f":
                np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("size", [4, 6])
def test_texts_that_do_not_end_where_they_say_are_refused(size: int) -> None:
    described = [{"name": "x", "datatype": "BYTES", "shape": [1], "offset": 0, "size": size}]
    with pytest.raises(ValueError, match="text"):
        tensors.unpack(described, b"\x01\x00\x00\x00ab"[:size])

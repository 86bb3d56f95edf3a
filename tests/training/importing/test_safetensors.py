"""A safetensors file is read as it streams by, and refused where its head says what cannot be."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.depth import examples
from training.errors import ImportRefused
from training.importing import safetensors

ARRAYS = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.ones(4, dtype="<i8"), "c": np.array(2, dtype="<f2")}
GOOD = save(ARRAYS)


def read(data: bytes, *names: str) -> dict[str, bytes]:
    stream = io.BytesIO(data)
    stored = safetensors.head(stream, len(data))
    return {
        tensor.name: bytes(content)
        for tensor, content in safetensors.wanted(stream, stored, lambda tensor: not names or tensor.name in names)
    }


def test_what_the_formats_own_package_writes_is_read() -> None:
    assert read(GOOD) == {name: values.tobytes() for name, values in ARRAYS.items()}


def test_only_what_is_wanted_is_held() -> None:
    assert set(read(GOOD, "b")) == {"b"}


def made(table: Any, content: bytes = bytes(8), *, length: int | None = None) -> bytes:
    head = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + content


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "ends early"),
    "a head cut off": (b"\1\2\3", "ends early"),
    "a head of all the world": (made({}, length=2**63), "are its head"),
    "a head longer than the file": (made({}, b"", length=3), "are its head"),
    "a head of nothing": (made(b""), "0 are its head"),
    "no JSON": (made(b"{]"), "no JSON object"),
    "a list": (made([1]), "no JSON object"),
    "JSON nested too deep": (made(b"[" * 100_000), "no JSON object"),
    "a tensor that is a number": (made({"a": 1}), "not described"),
    "a tensor without a shape": (made({"a": {"dtype": "F32", "data_offsets": [0, 8]}}), "not described"),
    "a field more": (made({"a": entry(file="/etc/passwd")}), "not described"),
    "an unknown type": (made({"a": entry("F33")}), "F33"),
    "a type that is a list": (made({"a": entry([])}), "type"),
    "a shape in words": (made({"a": entry(shape="2")}), "no shape"),
    "a shape with a point": (made({"a": entry(shape=[2.0])}), "no shape"),
    "a shape below zero": (made({"a": entry(shape=[-2])}), "no shape"),
    "a shape of nine axes": (made({"a": entry(shape=[1] * 8 + [2])}), "no shape"),
    "a shape beyond all memory": (made({"a": entry(shape=[2**47] * 8)}), "needs"),
    "three offsets": (made({"a": entry(offsets=[0, 8, 8])}), "no shape"),
    "offsets of another length": (made({"a": entry(offsets=[0, 4])}), "needs 8 bytes and has 4"),
    "offsets backwards": (made({"a": entry(offsets=[8, 0])}), "needs 8 bytes"),
    "a hole before": (made({"a": entry(offsets=[8, 16])}, bytes(16)), "begins at 8"),
    "an overlap": (made({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "begins at 4"),
    "bytes behind": (made({"a": entry()}, bytes(9)), "it has 9"),
    "bytes missing": (made({"a": entry()}, bytes(7)), "it has 7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_head_that_cannot_be_is_refused(case: str) -> None:
    data, says = REFUSED[case]
    with pytest.raises(ImportRefused) as caught:
        read(data)
    assert says in caught.value.message
    assert caught.value.code == "safetensors_unreadable"


@settings(max_examples=examples(300))
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    length=st.integers(0, len(GOOD)),
)
def test_a_changed_file_is_read_whole_or_refused(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    cut = bytes(data[:length] if length % 4 == 0 else data)
    try:
        found = read(cut)
    except ImportRefused:
        return
    assert sum(map(len, found.values())) <= len(cut)

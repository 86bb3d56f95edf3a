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
from training.safetensors import read_table, wanted

ARRAYS = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.ones(4, dtype="<i8"), "c": np.array(2, dtype="<f2")}
GOOD = save(ARRAYS)


def read(data: bytes, *names: str) -> dict[str, bytes]:
    stream = io.BytesIO(data)
    table = read_table(stream, len(data), "weights")
    chosen = wanted(stream, table, lambda tensor: not names or tensor.name in names, "weights")
    return {tensor.name: bytes(content) for tensor, content in chosen}


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
    "nothing": (b"", "truncated"),
    "a head cut off": (b"\1\2\3", "truncated"),
    "a head of all the world": (made({}, length=2**63), "lying_size"),
    "a head longer than the file": (made({}, b"", length=3), "lying_size"),
    "a head of nothing": (made(b""), "unreadable"),
    "no JSON": (made(b"{]"), "unreadable"),
    "a list": (made([1]), "unreadable"),
    "JSON nested too deep": (made(b"[" * 100_000), "unreadable"),
    "a tensor that is a number": (made({"a": 1}), "unreadable"),
    "a tensor without a shape": (made({"a": {"dtype": "F32", "data_offsets": [0, 8]}}), "unreadable"),
    "a field more": (made({"a": entry(file="/etc/passwd")}), "unreadable"),
    "an unknown type": (made({"a": entry("F33")}), "type"),
    "a type that is a list": (made({"a": entry([])}), "type"),
    "a shape in words": (made({"a": entry(shape="2")}), "shape"),
    "a shape with a point": (made({"a": entry(shape=[2.0])}), "shape"),
    "a shape below zero": (made({"a": entry(shape=[-2])}), "shape"),
    "a shape of nine axes": (made({"a": entry(shape=[1] * 8 + [2])}), "shape"),
    "a shape beyond all memory": (made({"a": entry(shape=[2**47] * 8)}), "lying_size"),
    "three offsets": (made({"a": entry(offsets=[0, 8, 8])}), "lying_size"),
    "offsets of another length": (made({"a": entry(offsets=[0, 4])}), "lying_size"),
    "offsets backwards": (made({"a": entry(offsets=[8, 0])}), "lying_size"),
    "a hole before": (made({"a": entry(offsets=[8, 16])}, bytes(16)), "layout"),
    "an overlap": (made({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "layout"),
    "bytes behind": (made({"a": entry()}, bytes(9)), "layout"),
    "a shape of nothing": (made({"a": entry(shape=[2, 0])}), "shape"),
    "a name that cannot be shown": (made({"a\x00": entry()}), "name"),
    "a name twice": (made(b'{"a": {}, "a": {}}'), "unreadable"),
    "bytes missing": (made({"a": entry()}, bytes(7)), "layout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_head_that_cannot_be_is_refused(case: str) -> None:
    data, code = REFUSED[case]
    with pytest.raises(ImportRefused) as caught:
        read(data)
    assert caught.value.code == f"safetensors_{code}"


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

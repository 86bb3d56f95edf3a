"""A model's plaintext is read part by part; a bundle that is not exactly what the page says is refused with why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import bundle
from inference.errors import LoadFailed
from tests.depth import examples
from tests.inference.make_bundle_vectors import FOLDER, GOOD, good, with_rows

VECTORS = json.loads((FOLDER / "good.json").read_text())
BROKEN = json.loads((FOLDER / "broken.json").read_text())


class Memory:
    """Bytes, read as a sealed model is."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size_bytes = data, len(data)
        self.most = 0

    def readinto(self, out: memoryview, offset: int = 0, *, workers: int = 1) -> int:
        assert offset + len(out) <= self.size_bytes
        out[:] = self.data[offset : offset + len(out)]
        self.most = max(self.most, len(out))
        return len(out)


def parts(data: bytes) -> bundle.Parts:
    return bundle.read(Memory(data))


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_a_good_bundle_gives_its_members(vector: dict[str, Any]) -> None:
    found = parts(bytes.fromhex(vector["hex"]))
    members = {name: bytes.fromhex(content) for name, content in vector["members"].items()}
    assert found.graph == members["graph"]
    assert (None if found.weights is None else found.weights[:]) == members.get("weights")
    assert found.tokenizer == members.get("tokenizer")
    assert found.card == (json.loads(members["card"]) if "card" in members else None)


@pytest.mark.parametrize("vector", BROKEN, ids=[vector["name"] for vector in BROKEN])
def test_a_broken_bundle_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(LoadFailed, match=vector["says"]):
        parts(bytes.fromhex(vector["hex"]))


def test_one_onnx_file_is_its_own_only_part() -> None:
    assert parts(b"\x08\x0a onnx") == bundle.Parts(b"\x08\x0a onnx")


def test_an_empty_model_is_refused() -> None:
    with pytest.raises(LoadFailed, match="0 bytes"):
        parts(b"")


def test_a_size_that_lies_is_refused_before_memory_is_asked_for() -> None:
    """The table says a tebibyte of weights, which a bundle may have: nothing of that size is made room for."""
    memory = Memory(with_rows([["graph", 192, 1], ["weights", 256, 1 << 40]]))
    with pytest.raises(LoadFailed, match="members end at"):
        bundle.read(memory)
    assert memory.most <= 16 + bundle.MAX_TABLE_BYTES


WHOLE = good(GOOD[1][1])


@settings(max_examples=examples(300))
@given(
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
    length=st.integers(0, len(WHOLE) + 70),
)
def test_a_changed_bundle_gives_members_of_the_same_sizes_or_is_refused(
    changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    try:
        found = parts(bytes(data[:length].ljust(length, b"\0")))
    except LoadFailed:
        return
    if found.card is not None:  # still a bundle
        assert [len(found.graph), len(found.weights or b""), len(found.tokenizer or b"")] == [64, 65, 2]

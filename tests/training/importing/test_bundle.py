"""What is sealed of a model with several parts is the bundle of the page, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.importing import bundle
from training.importing.bundle import Parts

GOOD = json.loads((Path(__file__).parents[2] / "vectors" / "bundle" / "good.json").read_text())


@pytest.mark.parametrize("vector", GOOD, ids=[vector["name"] for vector in GOOD])
def test_parts_are_written_to_the_bytes_of_the_vector(vector: dict[str, Any]) -> None:
    members = {name: bytes.fromhex(content) for name, content in vector["members"].items()}
    if "weights" in members:
        members["weights"] = memoryview(members["weights"])  # type: ignore[assignment]  # as they are held in memory
    assert b"".join(Parts(**members).pieces()) == bytes.fromhex(vector["hex"])


def test_a_graph_alone_is_written_as_it_is() -> None:
    assert b"".join(Parts(b"\x08\x0a graph").pieces()) == b"\x08\x0a graph"


@given(st.lists(st.integers(1, 2**36), min_size=2, max_size=4))
def test_every_member_is_aligned_and_close_to_the_one_before(sizes: list[int]) -> None:
    named = list(zip(("graph", "weights", "tokenizer", "card"), sizes, strict=False))
    head, paddings = bundle.laid_out(named)
    end = len(head)
    for (name, offset, size), padding in zip(json.loads(head[16:]), paddings, strict=True):
        assert offset == end + padding
        assert offset % 64 == 0
        assert padding < 64
        assert (name, size) in named
        end = offset + size


def test_large_parts_are_handed_out_in_pieces_without_a_copy() -> None:
    weights = memoryview(bytearray(40 * 2**20))
    pieces = list(Parts(b"graph", weights).pieces())
    assert max(map(len, pieces)) == 16 * 2**20
    assert [piece.obj is weights.obj for piece in pieces[-3:]] == [True] * 3

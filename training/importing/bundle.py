"""A model of several parts as one run of bytes: docs/formats/bundle.md, the writing side.

Hands out pieces to seal, so that large weights are never there twice. Knows names and offsets, no graph and no text;
`inference/bundle.py` reads what is written here, and both are held to tests/vectors/bundle/.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAGIC = b"\xffSRBUNDL"
VERSION = 1
ALIGNMENT = 64
MOST_BYTES = 2**40
_HEAD = struct.Struct(">8sB3xL")
_PIECE_BYTES = 16 * 2**20  # between two of them the job looks at what is wanted

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Parts:
    """The members; only `graph` is always there."""

    graph: bytes
    weights: memoryview | None = None
    tokenizer: bytes | None = None
    card: bytes | None = None

    def pieces(self) -> Iterator[memoryview]:
        """The model's bytes in order: the graph as it is where it stands alone, else the bundle."""
        every = (("graph", self.graph), ("weights", self.weights), ("tokenizer", self.tokenizer), ("card", self.card))
        members = [(name, memoryview(content)) for name, content in every if content]
        if len(members) == 1:
            yield from _cut(members[0][1])
            return
        head, paddings = laid_out([(name, len(content)) for name, content in members])
        yield memoryview(head)
        for (_, content), padding in zip(members, paddings, strict=True):
            yield memoryview(bytes(padding))
            yield from _cut(content)


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that was looked through and tried, and what is known of it."""

    parts: Parts
    signature: dict[str, Any]
    parameters: int
    weights_sha256: str
    card: dict[str, Any] | None = None


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def laid_out(sizes: list[tuple[str, int]]) -> tuple[bytes, list[int]]:
    """Head and table, and the zero bytes before each member. The offsets depend on the table's length and back."""
    length = 0
    while True:
        offsets, end = [], _HEAD.size + length
        for _, size in sizes:
            offsets.append(aligned(end))
            end = offsets[-1] + size
        rows = [[name, offset, size] for (name, size), offset in zip(sizes, offsets, strict=True)]
        table = json.dumps(rows, separators=(",", ":")).encode()
        if len(table) <= length:
            break
        length = len(table)
    table = table.ljust(length)
    ends = [_HEAD.size + length, *(offset + size for offset, (_, size) in zip(offsets, sizes, strict=True))]
    return _HEAD.pack(MAGIC, VERSION, length) + table, [start - end for start, end in zip(offsets, ends, strict=False)]


def _cut(content: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(content), _PIECE_BYTES):
        yield content[begin : begin + _PIECE_BYTES]

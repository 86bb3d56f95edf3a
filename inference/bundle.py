"""A model's plaintext → its parts: docs/formats/bundle.md, the reading side, strict about every byte of the table.

One ONNX file is its own only part. Each part is read by itself: what is small into bytes, the weights into one
anonymous mapping that goes back to the system as a whole. Knows no keys, no sessions and no tokenizer;
`training/importing/bundle.py` writes what is read here, and both are held to tests/vectors/bundle/.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from inference.engine import MAX_MODEL_BYTES
from inference.errors import LoadFailed

MAGIC: Final = b"\xffSRBUNDL"
VERSION: Final = 1
ALIGNMENT: Final = 64
MAX_TABLE_BYTES: Final = 4096
MAX_BUNDLE_BYTES: Final = 1 << 40
_HEAD: Final = struct.Struct(">8sB3sL")
# In the order in which they come, and what each may have.
_MEMBERS: Final = {
    "graph": MAX_MODEL_BYTES,
    "weights": MAX_BUNDLE_BYTES,
    "tokenizer": 32 << 20,
    "card": 64 << 10,
}
TWO_WORKERS_FROM_BYTES: Final = 8 << 20


class Plaintext(Protocol):
    """What a part is read from: a SealReader, or bytes in a test."""

    size_bytes: int

    def readinto(self, out: memoryview, offset: int = 0, *, workers: int = 1) -> int: ...


@dataclass(frozen=True, slots=True)
class Member:
    """Where a part lies."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The graph, and what stands beside it."""

    graph: bytes
    weights: mmap.mmap | None = None
    tokenizer: bytes | None = None
    card: dict[str, Any] | None = None


def read(source: Plaintext) -> Parts:
    """The parts, in memory; LoadFailed where they are not what the page says or the memory does not hold them."""
    if not 0 < source.size_bytes <= MAX_BUNDLE_BYTES:
        raise LoadFailed(f"the model has {source.size_bytes} bytes; 1 to {MAX_BUNDLE_BYTES} are served")
    head = _bytes(source, Member(0, min(source.size_bytes, _HEAD.size + MAX_TABLE_BYTES)))
    if not head.startswith(MAGIC):
        if source.size_bytes > MAX_MODEL_BYTES:
            raise LoadFailed(f"the model has {source.size_bytes} bytes; {MAX_MODEL_BYTES} are the most of one file")
        return Parts(_bytes(source, Member(0, source.size_bytes)))
    members = members_of(head, source.size_bytes)
    for begin, end in _gaps(head, members):
        if any(_bytes(source, Member(begin, end - begin))):
            raise _broken("bytes between its members are not zero")
    weights, tokenizer, card = (members.get(name) for name in ("weights", "tokenizer", "card"))
    return Parts(
        graph=_bytes(source, members["graph"]),
        weights=None if weights is None else _mapped(source, weights),
        tokenizer=None if tokenizer is None else _bytes(source, tokenizer),
        card=None if card is None else _object(_bytes(source, card)),
    )


def members_of(head: bytes, size_bytes: int) -> dict[str, Member]:
    """The table; `head` is the bundle's beginning, as long as a table may be."""
    if len(head) < _HEAD.size:
        raise _broken("it ends before its table")
    magic, version, reserved, length = _HEAD.unpack_from(head)
    if magic != MAGIC or version != VERSION or any(reserved):
        raise _broken(f"its version is {version}" if magic == MAGIC else "it has no magic")
    if not 2 <= length <= MAX_TABLE_BYTES or _HEAD.size + length > len(head):
        raise _broken(f"its table has {length} bytes")
    members: dict[str, Member] = {}
    end = _table_end(head)
    for name, offset, size in _rows(head[_HEAD.size : _HEAD.size + length]):
        if name in members or name not in _MEMBERS or not 0 < size <= _MEMBERS[name]:
            raise _broken(f"member '{name[:20]}' is there twice, unknown or of {size} bytes")
        if offset != _aligned(end):
            raise _broken(f"member '{name}' begins at {offset}, not at {_aligned(end)}")
        members[name] = Member(offset, size)
        end = offset + size
    if end != size_bytes:
        raise _broken(f"its members end at {end}, it at {size_bytes}")
    if [name for name in _MEMBERS if name in members] != list(members) or "graph" not in members:
        raise _broken("its members are not in order, or there is no graph")
    if ("tokenizer" in members) != ("card" in members):
        raise _broken("a tokenizer and a card come together")
    return members


def _rows(table: bytes) -> Iterator[tuple[str, int, int]]:
    try:
        rows = orjson.loads(table)
    except orjson.JSONDecodeError:
        rows = None
    if not isinstance(rows, list):
        raise _broken("its table is no list in JSON")
    for row in rows:
        if not isinstance(row, list) or [type(value) for value in row] != [str, int, int]:
            raise _broken("a row of its table is no name with two numbers")
        yield row[0], row[1], row[2]


def _gaps(head: bytes, members: dict[str, Member]) -> Iterator[tuple[int, int]]:
    ends = itertools.chain([_table_end(head)], (member.offset + member.size for member in members.values()))
    for end, member in zip(ends, members.values(), strict=False):
        if end < member.offset:
            yield end, member.offset


def _table_end(head: bytes) -> int:
    return _HEAD.size + int(_HEAD.unpack_from(head)[3])


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _bytes(source: Plaintext, member: Member) -> bytes:
    """BytesIO's buffer becomes the bytes that ONNX Runtime wants, without a copy of them in between."""
    store = io.BytesIO()
    store.seek(member.size - 1)
    store.write(b"\0")
    with store.getbuffer() as plain:
        _read_into(source, plain, member)
    return store.getvalue()


def _mapped(source: Plaintext, member: Member) -> mmap.mmap:
    memory = mmap.mmap(-1, member.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without large pages takes longer to touch small ones
        memory.madvise(mmap.MADV_HUGEPAGE)
    with memoryview(memory) as plain:
        _read_into(source, plain, member)
    return memory


def _read_into(source: Plaintext, plain: memoryview, member: Member) -> None:
    source.readinto(plain, member.offset, workers=2 if member.size >= TWO_WORKERS_FROM_BYTES else 1)


def _object(content: bytes) -> dict[str, Any]:
    try:
        card = orjson.loads(content)
    except orjson.JSONDecodeError:
        card = None
    if not isinstance(card, dict):
        raise _broken("its card is no object in JSON")
    return card


def _broken(what: str) -> LoadFailed:
    return LoadFailed(f"the model's bundle is not valid: {what}")

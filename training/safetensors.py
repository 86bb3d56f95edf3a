"""One safetensors file: which tensor lies where, and the tensors as they stream by. Strict: the file is a stranger's.

Reads from a stream that cannot go back, so that a file inside a zip is never unpacked; lengths are checked before
anything is read by them. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from training.data.archive import shown
from training.errors import ImportRefused

MOST_HEAD_BYTES = 16 * 2**20
MOST_NAME_BYTES = 256
MOST_TENSORS = 100_000
MOST_AXES = 8
_CHUNK_BYTES = 2**20
_ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor and its place in the file; the shape as PyTorch writes it, rows first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size_bytes: int


def read_table(stream: IO[bytes], size_bytes: int, file: str) -> tuple[Stored, ...]:
    """All tensors in the order of their places, which fill the file without holes; the stream stands at the first."""
    length = struct.unpack("<Q", exactly(stream, 8, file))[0]
    if length > min(MOST_HEAD_BYTES, size_bytes - 8):
        raise _refused("lying_size", f"{shown(file)} has {size_bytes} bytes and says its head has {length}")
    table = _parsed(bytes(exactly(stream, length, file)), file)
    stored = sorted(
        (_stored(name, entry, 8 + length) for name, entry in table.items() if name != "__metadata__"),
        key=lambda one: (one.begin, one.name),
    )
    place = 8 + length
    for one in stored:
        if one.begin != place:
            raise _refused("layout", f"tensor {shown(one.name)} of {shown(file)} begins at {one.begin}, not at {place}")
        place += one.size_bytes
    if place != size_bytes:
        raise _refused("layout", f"the tensors of {shown(file)} end at {place}, the file at {size_bytes}")
    return tuple(stored)


def wanted(
    stream: IO[bytes], table: Sequence[Stored], choose: Callable[[Stored], bool], file: str
) -> Iterator[tuple[Stored, bytearray]]:
    """Those that are chosen, one in memory at a time; at the end the whole stream was read, which checks its CRC."""
    for tensor in table:
        if choose(tensor):
            yield tensor, exactly(stream, tensor.size_bytes, file)
        else:
            for begin in range(0, tensor.size_bytes, _CHUNK_BYTES):
                exactly(stream, min(_CHUNK_BYTES, tensor.size_bytes - begin), file)
    while stream.read(_CHUNK_BYTES):
        pass


def exactly(stream: IO[bytes], count: int, file: str) -> bytearray:
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(count - len(data), _CHUNK_BYTES))):
        data += piece
    if len(data) < count:
        raise _refused("truncated", f"{shown(file)} ends early")
    return data


def _refused(code: str, problem: str) -> ImportRefused:
    hint = "save the model again: model.save_pretrained(folder, safe_serialization=True)"
    return ImportRefused(problem, hint, code=f"safetensors_{code}")


def _parsed(head: bytes, file: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name twice")
        return found

    try:
        table = json.loads(head, object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise _refused("unreadable", f"the head of {shown(file)} is no JSON, or has a name twice") from None
    if not isinstance(table, dict) or len(table) > MOST_TENSORS:
        raise _refused("unreadable", f"the head of {shown(file)} is no table of up to {MOST_TENSORS} tensors")
    return table


def _stored(name: str, entry: Any, data_begin: int) -> Stored:
    if not name or len(name.encode("utf-8", "surrogatepass")) > MOST_NAME_BYTES or not name.isprintable():
        raise _refused("name", f"tensor {shown(name)} has no usable name")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refused("unreadable", f"tensor {shown(name)} is not described by dtype, shape and data_offsets")
    dtype = entry["dtype"]
    item_bytes = _ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
    if item_bytes is None:
        raise _refused("type", f"tensor {shown(name)} is of type {shown(str(dtype))}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _whole(shape, MOST_AXES) or 0 in shape:
        raise _refused("shape", f"tensor {shown(name)} has the shape {str(shape)[:80]}")
    size_bytes = math.prod(shape) * item_bytes
    if not _whole(offsets, 2) or len(offsets) != 2 or offsets[1] - offsets[0] != size_bytes:
        raise _refused("lying_size", f"tensor {shown(name)} has {size_bytes} bytes and lies at {str(offsets)[:80]}")
    return Stored(name, dtype, tuple(shape), data_begin + offsets[0], size_bytes)


def _whole(values: Any, most: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )

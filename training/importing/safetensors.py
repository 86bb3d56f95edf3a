"""A safetensors file that streams by: what its head says of every tensor, then the tensors in their order.

Strict, since the file is a stranger's: lengths are checked before anything is read by them, and the tensors fill the
file without holes. Knows no network; what it yields is stored bytes. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from training.data.archive import shown
from training.errors import ImportRefused

MOST_HEAD_BYTES = 16 * 2**20
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
    """A tensor as the head has it; the shape is PyTorch's, `begin` counts from behind the head."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size_bytes: int


def head(stream: IO[bytes], size_bytes: int) -> list[Stored]:
    """The tensors in the order of their places; the stream stands at the first one's beginning then."""
    length = struct.unpack("<Q", exactly(stream, 8))[0]
    if not 2 <= length <= min(MOST_HEAD_BYTES, size_bytes - 8):
        raise refused(f"of {size_bytes} bytes {length} are its head")
    table = _table(exactly(stream, length))
    stored = [_stored(name, entry) for name, entry in table.items() if name != "__metadata__"]
    stored.sort(key=lambda tensor: (tensor.begin, tensor.size_bytes))
    end = 0
    for tensor in stored:
        if tensor.begin != end:
            raise refused(f"tensor {shown(tensor.name)} begins at {tensor.begin}, not at {end}")
        end += tensor.size_bytes
    if end != size_bytes - 8 - length:
        raise refused(f"its tensors have {end} bytes, it has {size_bytes - 8 - length} for them")
    return stored


def wanted(
    stream: IO[bytes], stored: list[Stored], choose: Callable[[Stored], bool]
) -> Iterator[tuple[Stored, bytearray]]:
    """Those that are chosen, one in memory at a time; at the end the whole stream was read, which checks its CRC."""
    for tensor in stored:
        if choose(tensor):
            yield tensor, exactly(stream, tensor.size_bytes)
        else:
            for begin in range(0, tensor.size_bytes, _CHUNK_BYTES):
                exactly(stream, min(_CHUNK_BYTES, tensor.size_bytes - begin))
    while stream.read(_CHUNK_BYTES):
        pass


def exactly(stream: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    done = 0
    while done < count:
        piece = stream.read(min(count - done, _CHUNK_BYTES))
        if not piece:
            raise refused("it ends early")
        data[done : done + len(piece)] = piece
        done += len(piece)
    return data


def _table(content: bytearray) -> dict[str, Any]:
    try:
        table = json.loads(bytes(content))
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict) or len(table) > MOST_TENSORS:
        raise refused(f"its head is no JSON object of at most {MOST_TENSORS} tensors")
    return table


def _stored(name: str, entry: Any) -> Stored:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refused(f"tensor {shown(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    item_bytes = _ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
    if item_bytes is None:
        raise refused(f"tensor {shown(name)} is of type {shown(str(dtype))}")
    if not _whole(shape, MOST_AXES) or not _whole(offsets, 2) or len(offsets) != 2:
        raise refused(f"tensor {shown(name)} has no shape and two offsets")
    size_bytes = math.prod(shape) * item_bytes
    if offsets[1] - offsets[0] != size_bytes:
        raise refused(f"tensor {shown(name)} needs {size_bytes} bytes and has {offsets[1] - offsets[0]}")
    return Stored(name, dtype, tuple(shape), offsets[0], size_bytes)


def _whole(values: Any, most: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )


def refused(problem: str) -> ImportRefused:
    return ImportRefused(
        f"the safetensors file cannot be read: {problem}",
        "save the model again: model.save_pretrained(folder, safe_serialization=True)",
        code="safetensors_unreadable",
    )

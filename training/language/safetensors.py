"""The table of one safetensors file: which tensor lies where. Strict, since the file is a stranger's.

Reads the head from a stream that cannot go back, so that a file inside a zip is never unpacked.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any

from training.errors import ImportRefused
from training.language.gguf import MOST_DIMENSIONS, MOST_TENSORS, MOST_WEIGHTS, shown
from training.language.tensor_types import BF16, F16, F32, TensorType

MOST_HEAD_BYTES = 16 * 2**20
MOST_NAME_BYTES = 256
TYPES: Mapping[str, TensorType] = MappingProxyType({"F32": F32, "F16": F16, "BF16": BF16})
_AGAIN = "save the model again: model.save_pretrained(folder, safe_serialization=True)"


@dataclass(frozen=True, slots=True)
class Slice:
    """A tensor and its place in the file; the shape as PyTorch writes it, rows first."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    begin: int
    size_bytes: int


def read_table(stream: IO[bytes], size_bytes: int, file: str) -> tuple[Slice, ...]:
    """All tensors in the order of their places; they fill the file without holes."""
    length = struct.unpack("<Q", _exactly(stream, 8, file))[0]
    if length > min(MOST_HEAD_BYTES, size_bytes - 8):
        raise _refused("lying_size", f"{shown(file)} has {size_bytes} bytes and says its head has {length}")
    table = _parsed(_exactly(stream, length, file), file)
    slices = sorted(
        (_slice(name, entry, 8 + length) for name, entry in table.items() if name != "__metadata__"),
        key=lambda one: (one.begin, one.name),
    )
    place = 8 + length
    for one in slices:
        if one.begin != place:
            raise _refused("layout", f"tensor {shown(one.name)} of {shown(file)} begins at {one.begin}, not at {place}")
        place += one.size_bytes
    if place != size_bytes:
        raise _refused("layout", f"the tensors of {shown(file)} end at {place}, the file at {size_bytes}")
    return tuple(slices)


def _refused(code: str, problem: str) -> ImportRefused:
    return ImportRefused(problem, _AGAIN, code=f"safetensors_{code}")


def _exactly(stream: IO[bytes], count: int, file: str) -> bytes:
    data = bytearray()
    while len(data) < count and (piece := stream.read(count - len(data))):
        data += piece
    if len(data) < count:
        raise _refused("truncated", f"{shown(file)} ends within its head")
    return bytes(data)


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


def _slice(name: str, entry: Any, data_begin: int) -> Slice:
    if not name or len(name.encode("utf-8", "surrogatepass")) > MOST_NAME_BYTES or not name.isprintable():
        raise _refused("name", f"tensor {shown(name)} has no usable name")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refused("unreadable", f"tensor {shown(name)} is not described by dtype, shape and data_offsets")
    kind = TYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if kind is None:
        raise ImportRefused(
            f"tensor {shown(name)} is stored as {shown(str(entry['dtype']))}",
            f"{', '.join(TYPES)} are taken in; quantised weights are not",
            code="safetensors_type",
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _whole(shape, MOST_DIMENSIONS) or 0 in shape or math.prod(shape) > MOST_WEIGHTS:
        raise _refused("shape", f"tensor {shown(name)} has the shape {str(shape)[:80]}")
    size_bytes = math.prod(shape) * kind.block_bytes
    if not _whole(offsets, 2) or len(offsets) != 2 or offsets[1] - offsets[0] != size_bytes:
        raise _refused("lying_size", f"tensor {shown(name)} has {size_bytes} bytes and lies at {str(offsets)[:80]}")
    return Slice(name, kind, tuple(shape), data_begin + offsets[0], size_bytes)


def _whole(values: Any, most: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value < 2**63 for value in values)
    )

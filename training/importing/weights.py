"""The tensors of a graph that lie outside of it, once, in anonymous memory, and how the graph names them.

Knows ranges and what ONNX writes about them; not where they came from.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorProto

from training.errors import ImportRefused
from training.importing.bundle import MOST_BYTES, aligned

LOCATION = "weights"
_BITS: dict[int, int] = {
    TensorProto.BOOL: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.UINT32: 32,
    TensorProto.INT32: 32,
    TensorProto.FLOAT: 32,
    TensorProto.UINT64: 64,
    TensorProto.INT64: 64,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor lies."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class Weights:
    """Room for tensors of the given lengths, each at a multiple of 64. One thread fills it."""

    def __init__(self, lengths: Sequence[int]) -> None:
        places, end = [], 0
        for length in lengths:
            places.append(Place(aligned(end), length))
            end = places[-1].end
        if end > MOST_BYTES:
            raise ImportRefused(f"the weights have {end} bytes", f"{MOST_BYTES} are the most", code="onnx_too_large")
        self.places = tuple(places)
        try:
            # Private, not mmap's usual shared: shared memory has no large pages and is charged as a file.
            memory = mmap.mmap(-1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:
            raise MemoryError from None
        self.view = memoryview(memory)

    def at(self, place: Place) -> memoryview:
        return self.view[place.offset : place.end]

    def of(self, tensor: TensorProto) -> memoryview:
        """The bytes of a tensor that `point` has pointed here."""
        fields = {entry.key: entry.value for entry in tensor.external_data}
        return self.at(Place(int(fields["offset"]), int(fields["length"])))


def point(tensor: TensorProto, place: Place) -> None:
    """`tensor` lies there from now on."""
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", LOCATION), ("offset", place.offset), ("length", place.length)):
        tensor.external_data.add(key=key, value=str(value))


def is_outside(tensor: TensorProto) -> bool:
    return bool(tensor.external_data) or tensor.data_location == TensorProto.EXTERNAL


def bytes_of(tensor: TensorProto) -> int | None:
    """What its shape and type ask for; None where the type has no fixed size or an axis is negative."""
    bits = _BITS.get(tensor.data_type)
    sizes: list[int] = list(tensor.dims)
    if bits is None or any(size < 0 for size in sizes):
        return None
    return -(-math.prod(sizes) * bits // 8)

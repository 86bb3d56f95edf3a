"""Arrays as bytes and back, in the layout of a cell's frames (docs/formats/processes.md): described by name, datatype,
shape and offset, little-endian, each at a multiple of 64; BYTES elements behind a u32 of their length.

The data plane has a codec of its own: the two packages know nothing of each other. Here only our parent is on the other
side, so that a misfit is an error of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ALIGNMENT = 64
DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def pack(arrays: Mapping[str, Array]) -> tuple[list[dict[str, Any]], bytes]:
    """Descriptions and the body that they point into."""
    described: list[dict[str, Any]] = []
    body = bytearray()
    for name, array in arrays.items():
        body += bytes(-len(body) % ALIGNMENT)
        datatype = "BYTES" if array.dtype == object else _NAMES[array.dtype]
        data = _pack_texts(array) if datatype == "BYTES" else np.ascontiguousarray(array).tobytes()
        fields = {"name": name, "datatype": datatype, "shape": list(array.shape), "offset": len(body)}
        if datatype == "BYTES":
            fields["size"] = len(data)
        described.append(fields)
        body += data
    return described, bytes(body)


def unpack(described: Sequence[Mapping[str, Any]], body: bytes | bytearray | memoryview) -> dict[str, Array]:
    """Copies, BYTES as an object array of bytes; ValueError where descriptions and body do not agree."""
    found = {}
    for fields in described:
        shape, offset = tuple(fields["shape"]), fields["offset"]
        if fields["datatype"] == "BYTES":
            found[fields["name"]] = _unpack_texts(memoryview(body)[offset : offset + fields["size"]], shape)
            continue
        dtype = DTYPES[fields["datatype"]]
        array = np.frombuffer(body, dtype, math.prod(shape), offset) if math.prod(shape) else np.empty(0, dtype)
        found[fields["name"]] = array.reshape(shape).copy()
    return found


def _pack_texts(array: Array) -> bytes:
    parts = bytearray()
    for text in array.reshape(-1).tolist():
        data = text if isinstance(text, bytes) else str(text).encode()
        parts += len(data).to_bytes(4, "little") + data
    return bytes(parts)


def _unpack_texts(data: memoryview, shape: tuple[int, ...]) -> Array:
    texts = np.empty(math.prod(shape), dtype=object)
    at = 0
    for place in range(len(texts)):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data) or at + 4 > len(data):
            raise ValueError("a text is longer than its tensor")
        texts[place] = bytes(data[at + 4 : end])
        at = end
    if at != len(data):
        raise ValueError("bytes behind the last text")
    return texts.reshape(shape)

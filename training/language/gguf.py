"""GGUF, versions 2 and 3, little-endian: a strict reader of what nobody trusts, and a writer that streams.

The reader asks a source for ranges and holds the head only: names, values and the table of tensors, never their data.
Every count, length and place is compared with what the file has before it is used, so what a head claims costs no
memory. It knows the format, no model: what a language model's head must say is structure.py's.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from training.data.archive import shown
from training.errors import ImportRefused
from training.language.tensor_types import BY_NUMBER, TensorType

Read = Callable[[int, int], bytes | bytearray]
Bytes = bytes | bytearray | memoryview

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MOST_ALIGNMENT = 2**16
MOST_HEAD_BYTES = 64 * 2**20
MOST_KEYS = 4096
MOST_KEY_BYTES = 256
MOST_TEXT_BYTES = 16 * 2**20
MOST_ELEMENTS = 2_000_000  # of all arrays: the largest vocabularies have 256,000 tokens and twice as many merges
MOST_TENSORS = 16_384
MOST_NAME_BYTES = 63  # llama.cpp keeps 64 with the end
MOST_DIMENSIONS = 4
MOST_WEIGHTS = 2**48
_CHUNK = 2**18
_AGAIN = "write the file again with llama.cpp's own tools"
_FOREIGN = {
    b"PK\x03\x04": "it is a zip: a folder of safetensors is taken in as the format safetensors-zip",
    b"\x80": "it is a pickle, which is never opened; convert the model to GGUF or safetensors",
    b"ggjt": "it is llama.cpp's format before GGUF; convert it again",
    b"FUGG": "it is big-endian; convert it on a little-endian machine",
}

_NUMBERS: Mapping[int, tuple[str, str]] = MappingProxyType(  # number in the file -> our name, numpy's
    {
        0: ("u8", "<u1"),
        1: ("i8", "<i1"),
        2: ("u16", "<u2"),
        3: ("i16", "<i2"),
        4: ("u32", "<u4"),
        5: ("i32", "<i4"),
        6: ("f32", "<f4"),
        7: ("bool", "<u1"),
        10: ("u64", "<u8"),
        11: ("i64", "<i8"),
        12: ("f64", "<f8"),
    }
)
_TEXT, _ARRAY = 8, 9
_NUMBER_OF = MappingProxyType({name: number for number, (name, _) in _NUMBERS.items()} | {"text": _TEXT})


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the head and its type: u8 … i64, f32, f64, bool, text, or one of these in brackets: [text]."""

    kind: str
    value: Any

    @property
    def is_array(self) -> bool:
        return self.kind.startswith("[")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the table. Its shape is written as GGUF has it: the width of a row first."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int = -1  # from the file's begin; -1 where it is not laid out yet

    @property
    def size_bytes(self) -> int:
        return self.type.size_bytes(self.shape)

    @property
    def weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before the data."""

    version: int
    fields: Mapping[str, Field]
    tensors: tuple[Tensor, ...]
    data_offset: int
    size_bytes: int

    @property
    def metadata(self) -> dict[str, Any]:
        return {key: field.value for key, field in self.fields.items()}


def refused(code: str, problem: str, hint: str = _AGAIN) -> ImportRefused:
    return ImportRefused(problem, hint, code=code)


def read_head(read: Read, size_bytes: int) -> Head:
    """The head of the file that `read` gives ranges of; ImportRefused names the first thing that is wrong."""
    cursor = _Cursor(read, size_bytes)
    version = _version(cursor)
    tensor_count = cursor.count("the number of tensors", MOST_TENSORS, 24)
    field_count = cursor.count("the number of keys", MOST_KEYS, 13)
    fields = _fields(cursor, field_count)
    alignment = _alignment(fields)
    described = [_tensor(cursor, place) for place in range(tensor_count)]
    data_offset = _padded(cursor.position, alignment)
    tensors = tuple(Tensor(tensor.name, tensor.shape, tensor.type, data_offset + tensor.offset) for tensor in described)
    _check_layout(tensors, data_offset, alignment, size_bytes)
    return Head(version, MappingProxyType(fields), tensors, data_offset, size_bytes)


class _Cursor:
    """Goes through the head in order, in pieces; never beyond the file's end or the most that a head may be."""

    def __init__(self, read: Read, size_bytes: int) -> None:
        self._read = read
        self.size_bytes = size_bytes
        self.position = 0
        self.elements = 0
        self._piece = b""
        self._piece_begin = 0

    def take(self, count: int, what: str) -> bytes:
        end = self.position + count
        if end > self.size_bytes:
            raise refused(
                "gguf_truncated",
                f"{what} needs {count} bytes at {self.position}, the file has {self.size_bytes}",
                "upload the whole file",
            )
        if end > MOST_HEAD_BYTES:
            raise refused("gguf_head_too_large", f"the head goes on beyond {MOST_HEAD_BYTES} bytes, at {what}")
        begin = self.position - self._piece_begin
        if begin + count > len(self._piece):
            length = min(max(count, _CHUNK), self.size_bytes - self.position)
            self._piece, self._piece_begin, begin = bytes(self._read(self.position, length)), self.position, 0
        self.position = end
        return self._piece[begin : begin + count]

    def number(self, what: str, layout: str = "<Q") -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]
        return value

    def count(self, what: str, most: int, least_bytes: int) -> int:
        """A number of things to come, each of `least_bytes` or more."""
        count = self.number(what)
        if count > most:
            raise refused("gguf_lying_size", f"{what} is {count}, {most} is the most")
        if count * least_bytes > self.size_bytes - self.position:
            raise refused(
                "gguf_lying_size", f"{what} is {count}, but only {self.size_bytes - self.position} bytes follow"
            )
        return count

    def text(self, what: str, most: int) -> str:
        length = self.count(f"the length of {what}", most, 1)
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise refused("gguf_text", f"{what} is not UTF-8") from None


def _version(cursor: _Cursor) -> int:
    if cursor.size_bytes < 4:
        raise refused(
            "gguf_unreadable", f"the file has {cursor.size_bytes} bytes and is not GGUF", "upload a GGUF file"
        )
    magic = cursor.take(4, "the magic")
    if magic != MAGIC:
        hints = (hint for start, hint in _FOREIGN.items() if magic.startswith(start))
        raise refused("gguf_unreadable", "the file is not GGUF", next(hints, "upload a GGUF file"))
    version = cursor.number("the version", "<I")
    if version not in VERSIONS:
        swapped = struct.unpack(">I", struct.pack("<I", version))[0]
        hint = _FOREIGN[b"FUGG"] if swapped in VERSIONS else _AGAIN
        raise refused("gguf_version", f"the version is {version}; {VERSIONS[0]} and {VERSIONS[1]} are read", hint)
    return version


def _fields(cursor: _Cursor, count: int) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for place in range(count):
        key = cursor.text(f"key {place}", MOST_KEY_BYTES)
        if not key or not key.isprintable():
            raise refused("gguf_key", f"key {place} is {shown(key)}, which is no name")
        if key in fields:
            raise refused("gguf_key", f"the key {shown(key)} is there twice")
        fields[key] = _field(cursor, f"the key {shown(key)}")
    return fields


def _field(cursor: _Cursor, what: str) -> Field:
    number = cursor.number(what, "<I")
    if number == _ARRAY:
        return _array(cursor, what)
    if number == _TEXT:
        return Field("text", cursor.text(what, MOST_TEXT_BYTES))
    kind, layout = _number_type(number, what)
    return Field(kind, _numbers(cursor, kind, layout, 1, what)[0])


def _array(cursor: _Cursor, what: str) -> Field:
    number = cursor.number(what, "<I")
    if number == _ARRAY:
        raise refused("gguf_nested", f"{what} holds an array of arrays")
    kind, layout = ("text", "") if number == _TEXT else _number_type(number, what)
    least = 8 if number == _TEXT else np.dtype(layout).itemsize
    count = cursor.count(f"the length of {what}", MOST_ELEMENTS, least)
    cursor.elements += count
    if cursor.elements > MOST_ELEMENTS:
        raise refused(
            "gguf_lying_size", f"{what} brings the arrays to {cursor.elements} elements, {MOST_ELEMENTS} is the most"
        )
    if number == _TEXT:
        return Field("[text]", [cursor.text(what, MOST_TEXT_BYTES) for _ in range(count)])
    return Field(f"[{kind}]", _numbers(cursor, kind, layout, count, what))


def _number_type(number: int, what: str) -> tuple[str, str]:
    if number not in _NUMBERS:
        raise refused("gguf_value_type", f"{what} has the unknown type {number}")
    return _NUMBERS[number]


def _numbers(cursor: _Cursor, kind: str, layout: str, count: int, what: str) -> list[Any]:
    values = np.frombuffer(cursor.take(count * np.dtype(layout).itemsize, what), dtype=layout)
    if kind == "bool":
        if (values > 1).any():
            raise refused("gguf_value", f"{what} is neither true nor false: {int(values.max())}")
        values = values.astype(bool)
    found: list[Any] = values.tolist()
    return found


def _alignment(fields: Mapping[str, Field]) -> int:
    field = fields.get("general.alignment", Field("u32", ALIGNMENT))
    value = field.value
    if field.kind != "u32" or not 1 <= value <= MOST_ALIGNMENT or value & (value - 1):
        raise refused(
            "gguf_alignment",
            f"general.alignment is {str(value)[:20]}; it must be a power of two up to {MOST_ALIGNMENT}",
        )
    return int(value)


def _tensor(cursor: _Cursor, place: int) -> Tensor:
    name = cursor.text(f"the name of tensor {place}", MOST_NAME_BYTES)
    if not name or not name.isprintable():
        raise refused("gguf_tensor_name", f"tensor {place} is called {shown(name)}, which is no name")
    what = f"tensor {shown(name)}"
    dimensions = cursor.number(what, "<I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise refused("gguf_tensor_shape", f"{what} has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are read")
    shape = tuple(cursor.number(what) for _ in range(dimensions))
    if 0 in shape or math.prod(shape) > MOST_WEIGHTS:
        raise refused("gguf_tensor_shape", f"{what} has the shape {list(shape)}")
    number = cursor.number(what, "<I")
    if number not in BY_NUMBER:
        raise refused("gguf_tensor_type", f"{what} has the unknown type {number}")
    kind = BY_NUMBER[number]
    if shape[0] % kind.block:
        raise refused(
            "gguf_tensor_shape", f"{what} of type {kind.name} has rows of {shape[0]}, no multiple of {kind.block}"
        )
    return Tensor(name, shape, kind, cursor.number(what))


def _check_layout(tensors: Sequence[Tensor], data_offset: int, alignment: int, size_bytes: int) -> None:
    """Data stands without holes from `data_offset` to the end, in any order; only padding lies between."""
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise refused("gguf_tensor_name", f"tensor {shown(tensor.name)} is there twice")
        seen.add(tensor.name)
        if tensor.offset % alignment:
            raise refused(
                "gguf_tensor_offset",
                f"tensor {shown(tensor.name)} lies at {tensor.offset - data_offset}, no multiple of {alignment}",
            )
        if tensor.offset + tensor.size_bytes > size_bytes:
            raise refused(
                "gguf_truncated",
                f"tensor {shown(tensor.name)} ends at {tensor.offset + tensor.size_bytes}, the file at {size_bytes}",
                "upload the whole file",
            )
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    for before, after in pairwise(ordered):
        end = before.offset + before.size_bytes
        if after.offset < end:
            raise refused("gguf_overlap", f"tensor {shown(after.name)} begins within {shown(before.name)}")
        if after.offset != _padded(end, alignment):
            raise refused("gguf_hole", f"{after.offset - end} bytes before tensor {shown(after.name)} belong to nobody")
    if ordered and ordered[0].offset != data_offset:
        raise refused("gguf_hole", f"{ordered[0].offset - data_offset} bytes before the first tensor belong to nobody")
    end = ordered[-1].offset + ordered[-1].size_bytes if ordered else min(data_offset, size_bytes)
    if size_bytes > max(_padded(end, alignment), data_offset):
        raise refused("gguf_end", f"{size_bytes - end} bytes follow the last tensor, which no padding explains")


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


class Writer:
    """Version 3 onto `write`: the head at once, then the tensors' bytes in the order of the table, padded.

    The sizes are the table's: data that crosses from one tensor into the next is a defect of the caller's.
    """

    def __init__(
        self, write: Callable[[Bytes], object], fields: Mapping[str, Field], tensors: Sequence[Tensor]
    ) -> None:
        self._write = write
        self._alignment = _alignment(fields)
        head, offset, placed = _head_bytes(fields, tensors), 0, []
        data_offset = _padded(len(head) + sum(_tensor_bytes(tensor) for tensor in tensors), self._alignment)
        for tensor in tensors:
            head += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
            head += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type.number, offset)
            placed.append(Tensor(tensor.name, tensor.shape, tensor.type, data_offset + offset))
            offset = _padded(offset + tensor.size_bytes, self._alignment)
        self.tensors = tuple(placed)
        self.data_offset = data_offset
        self.size_bytes = data_offset + offset
        self._place = 0
        self._left = placed[0].size_bytes if placed else 0
        write(bytes(head) + bytes(data_offset - len(head)))

    def data(self, piece: Bytes) -> None:
        """The next bytes of the tensor at hand; its padding follows by itself."""
        if len(piece) > self._left:
            raise ValueError(f"{len(piece)} bytes for a tensor that has {self._left} left")
        self._write(piece)
        self._left -= len(piece)
        if not self._left and piece:
            size = self.tensors[self._place].size_bytes
            self._write(bytes(_padded(size, self._alignment) - size))
            self._place += 1
            self._left = self.tensors[self._place].size_bytes if self._place < len(self.tensors) else 0

    def close(self) -> None:
        if self._place != len(self.tensors):
            raise ValueError(f"{self._place} of {len(self.tensors)} tensors were written")


def _head_bytes(fields: Mapping[str, Field], tensors: Sequence[Tensor]) -> bytearray:
    head = bytearray(MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(fields)))
    for key, field in fields.items():
        head += _text(key)
        if field.is_array:
            kind = field.kind[1:-1]
            head += struct.pack("<IIQ", _ARRAY, _NUMBER_OF[kind], len(field.value)) + _packed(kind, field.value)
        else:
            head += struct.pack("<I", _NUMBER_OF[field.kind]) + _packed(field.kind, [field.value])
    return head


def _packed(kind: str, values: Sequence[Any]) -> bytes:
    if kind == "text":
        return b"".join(map(_text, values))
    return np.array(values, dtype=_NUMBERS[_NUMBER_OF[kind]][1]).tobytes()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _tensor_bytes(tensor: Tensor) -> int:
    """Of its line in the table: name, number of dimensions, sizes, type, offset."""
    return 8 + len(tensor.name.encode()) + 4 + 8 * len(tensor.shape) + 4 + 8

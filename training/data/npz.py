"""An NPZ file: `image` (uint8 [N, C, H, W]) or `features` (numbers [N, F]), beside them the target ([N]).

numpy's own reader allocates what a header asks for and unpickles objects when allowed to; here a header is read by
itself, held against the size of its member, and only then is memory taken. Nothing is ever unpickled.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from training.data.archive import Archive, shown
from training.data.limits import LIMITS
from training.data.rows import Array, Raw
from training.data.source import Source
from training.errors import DataRefused

_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 4096
_DTYPE = re.compile(r"^[<>|=]?(?:b1|[iu][1248]|f[248]|[US][1-9]\d{0,5})$")
_LAYOUT = "arrays `image` (uint8, N×C×H×W) or `features` (N×F), and the target's (N)"
_PIECE_BYTES = 2**20


def read(file: Source, target: str) -> Raw:
    archive = Archive(file)
    members = {entry.filename.removesuffix(".npy"): entry for entry in archive.entries}
    modality = _layout(members, target)
    name = "image" if modality == "image" else "features"
    headers = {one: _header(archive, members[one], one) for one in (name, target)}
    (_check_pictures if modality == "image" else _check_features)(headers[name])
    _check_target(target, headers[target], headers[name].shape[0])
    values = _read(archive, members[name], headers[name])
    label = _read(archive, members[target], headers[target])
    if modality == "tabular":
        values = _features(values)
    return Raw("image" if modality == "image" else "tabular", {name: values}, _as_target(target, label))


def _layout(members: dict[str, zipfile.ZipInfo], target: str) -> str:
    inputs = [name for name in ("image", "features") if name in members and name != target]
    shown_names = ", ".join(shown(name) for name in list(members)[:10]) or "none"
    if target not in members:
        raise DataRefused(
            f"there is no array {target!r}, the target", f"the arrays are {shown_names}", code="target_absent"
        )
    if len(inputs) != 1:
        raise DataRefused(
            "there is not exactly one of the arrays 'image' and 'features'",
            f"save {_LAYOUT}; the arrays are {shown_names}",
            code="npz_layout",
        )
    for name in members:
        if name not in (*inputs, target):
            raise DataRefused(f"the array {shown(name)} has no meaning here", f"save {_LAYOUT} only", code="npz_layout")
    return "image" if inputs == ["image"] else "tabular"


@dataclass(frozen=True, slots=True)
class _Header:
    """What a member says of itself, after its size was found to agree."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    header_bytes: int


def _header(archive: Archive, entry: zipfile.ZipInfo, name: str) -> _Header:
    with archive.open(entry) as stream:
        text, header_bytes = _header_text(stream)
    fields = _fields(text)
    if fields is None:
        raise DataRefused(f"array {name!r} has no header that can be read", "save it by numpy.savez", code="npz_header")
    descr, is_fortran, shape = fields
    if "O" in str(descr):
        raise DataRefused(
            f"array {name!r} holds Python objects", "save numbers or fixed-width strings", code="npz_objects"
        )
    if not isinstance(descr, str) or not _DTYPE.match(descr):
        raise DataRefused(f"array {name!r} has a type that is not supported", "save plain numbers", code="npz_type")
    dtype = np.dtype(descr)
    promised = math.prod(shape) * dtype.itemsize
    if promised != entry.file_size - header_bytes:
        raise DataRefused(
            f"array {name!r} promises {promised} bytes and has {max(0, entry.file_size - header_bytes)}",
            "save it by numpy.savez and upload it whole",
            code="npz_header_lies",
        )
    return _Header(name, dtype, shape, is_fortran, header_bytes)


def _header_text(stream: IO[bytes]) -> tuple[bytes, int]:
    """The header's dictionary and where the values begin; empty where there is none."""
    start = stream.read(8)
    if start[:6] != _MAGIC or len(start) != 8:
        return b"", 0
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    return (stream.read(length) if length <= _HEADER_BYTES else b""), 8 + width + length


def _fields(text: bytes) -> tuple[object, bool, tuple[int, ...]] | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            fields = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        return None
    shape, is_fortran = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(side) is int and 0 <= side < 2**48 for side in shape):
        return None
    return (fields["descr"], is_fortran, shape) if isinstance(is_fortran, bool) and len(shape) <= 8 else None


def _check_pictures(header: _Header) -> None:
    shape = header.shape
    if len(shape) == 3:
        hint = "add the channels' axis: image[:, None]"
    elif len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        hint = "put channels before height and width: image.transpose(0, 3, 1, 2)"
    else:
        hint = "save uint8 N×C×H×W with 1 or 3 channels"
    if header.dtype != np.uint8:
        raise _refused("npz_image_type", f"array 'image' has the type {header.dtype}", "save bytes 0 to 255 as uint8")
    if len(shape) != 4 or shape[1] not in (1, 3) or not all(1 <= side <= LIMITS.array_side for side in shape[2:]):
        raise _refused("npz_image_shape", f"array 'image' has the shape {list(shape)}", hint)
    _check_rows(shape[0])


def _check_features(header: _Header) -> None:
    shape = header.shape
    if header.dtype.kind in "US":
        raise _refused("npz_features_type", "array 'features' holds texts", "save numbers, or upload a CSV")
    if len(shape) != 2 or not 1 <= shape[1] <= LIMITS.columns:
        hint = "save N×F; one feature is features[:, None]"
        raise _refused("npz_features_shape", f"array 'features' has the shape {list(shape)}", hint)
    _check_rows(shape[0])


def _check_rows(rows: int) -> None:
    if not rows:
        raise _refused("no_rows", "the arrays have no row", "add rows")
    if rows > LIMITS.rows:
        raise _refused("too_many_rows", f"there are {rows} rows", f"{LIMITS.rows} are the most")


def _check_target(name: str, header: _Header, rows: int) -> None:
    if header.shape != (rows,):
        raise _refused(
            "npz_target_shape",
            f"the target {name!r} has the shape {list(header.shape)}, the inputs have {rows} rows",
            f"save it with the shape [{rows}]",
        )
    if header.dtype.kind in "US" and header.dtype.itemsize > 4 * LIMITS.name_characters:
        raise _refused(
            "class_name_too_long",
            f"the target {name!r} has very long texts",
            f"{LIMITS.name_characters} characters at most",
        )


def _refused(code: str, message: str, hint: str) -> DataRefused:
    return DataRefused(message, hint, code=code)


def _read(archive: Archive, entry: zipfile.ZipInfo, header: _Header) -> Array:
    values = np.empty(math.prod(header.shape), dtype=header.dtype)
    view = values.view(np.uint8).data
    with archive.open(entry) as stream:
        stream.read(header.header_bytes)
        filled = 0
        while filled < len(view) and (piece := stream.read(min(_PIECE_BYTES, len(view) - filled))):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        is_whole = filled == len(view) and not stream.read(1)  # the last read checks the member's checksum
    if not is_whole:
        raise _refused("npz_header_lies", f"array {header.name!r} has fewer bytes than promised", "upload it whole")
    shaped = values.reshape(header.shape, order="F" if header.is_fortran else "C")
    return np.ascontiguousarray(shaped, dtype=header.dtype.newbyteorder("="))


def _features(values: Array) -> Array:
    """float32; NaN is a missing value."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if len(bad := np.flatnonzero(np.isinf(narrow).any(axis=1))):
        raise _refused(
            "number_not_finite", f"row {bad[0] + 1} of 'features' holds a number beyond 32-bit floats", "rescale it"
        )
    return narrow


def _as_target(name: str, values: Array) -> Array:
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise _refused("npz_text", f"the target {name!r} is not UTF-8", "save it as numpy strings") from None
    if values.dtype.kind != "U":
        return values
    try:
        return values.astype(object)
    except ValueError:  # code points that are none
        raise _refused("npz_text", f"the target {name!r} is no text", "save it as numpy strings") from None

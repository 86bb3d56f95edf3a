"""Raw request bodies → arrays by the model's signature: JSON rows, PNG and JPEG, CSV, npy. Runs inside the cell only.

What comes in is hostile: each format is taken from an allow-list, bounded before it is unpacked, and parsed in the
sandbox. Knows nothing of frames, queues or HTTP. Images are made as in training: RGB or grey by the input's channels,
resized bilinear to its height and width, no other change.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import orjson

from inference.errors import InputRefused, MediaTypeUnsupported
from inference.protocol import DTYPES, ROWS, Array, Buffer
from inference.signature import Signature, Tensor, cast, from_json, nearest

MAX_IMAGE_PIXELS: Final = 64_000_000
MAX_ROWS: Final = 1_000_000
MAX_NPY_HEADER_BYTES: Final = 4096
_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})
_DEPTH_8: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}


def _body(code: str, message: str, hint: str | None = None) -> InputRefused:
    """The whole of what came is refused."""
    return InputRefused("", code, message, hint, detail=f"the body {message}" + (f", {hint}" if hint else ""))


def decode(signature: Signature, content_type: str, body: Buffer) -> dict[str, Array]:
    """Arrays that `signature.check` has passed; InputRefused or MediaTypeUnsupported says what is wrong."""
    kind = content_type.partition(";")[0].strip().lower()
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise MediaTypeUnsupported(f"'{kind}' is not decoded here; {', '.join(accepted(signature))} are")
    inputs = decoder(signature, kind, body)
    signature.check(inputs)
    return inputs


def accepted(signature: Signature) -> list[str]:
    """The media types that make sense for this model."""
    kinds = ["application/json"]
    if _image_input(signature) is not None:
        kinds += ["image/png", "image/jpeg"]
    if all(_is_column(tensor) for tensor in signature.inputs):
        kinds.append("text/csv")
    if len(signature.inputs) == 1:
        kinds += ["application/x-npy"]
        if _spread(signature):
            kinds.append("text/csv")
    return kinds


# --- rows ---


def _rows(signature: Signature, kind: str, body: Buffer) -> dict[str, Array]:
    try:
        rows = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputRefused("/rows", "json", "is not JSON", str(error)) from None
    if not isinstance(rows, list) or not rows:
        raise InputRefused("/rows", "rows", "is not a list of rows", "expected at least one object")
    names = _spread(signature) or tuple(tensor.name for tensor in signature.inputs)
    _check_rows(rows, names)
    if _spread(signature):
        table = np.column_stack([_column(signature.inputs[0], name, rows) for name in names])
        return {signature.inputs[0].name: table}
    return {tensor.name: _values(tensor, rows) for tensor in signature.inputs}


def _check_rows(rows: Sequence[Any], names: Sequence[str]) -> None:
    problems: list[InputRefused] = []
    expected = set(names)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            problems.append(InputRefused(f"/rows/{index}", "row", "is not an object", "expected {column: value}"))
        elif row.keys() != expected:
            problems += [
                _field(index, name, "missing", "is missing", "write null for a value that is not known")
                for name in names
                if name not in row
            ]
            problems += [
                _field(index, name, "extra_forbidden", "is not an input of the model", nearest(name, names))
                for name in row
                if name not in expected
            ]
        if len(problems) >= 20:
            break
    if problems:
        raise InputRefused.of(problems)


def _field(index: int, name: str, code: str, message: str, hint: str | None) -> InputRefused:
    pointer = name.replace("~", "~0").replace("/", "~1")
    text = f"row {index}: '{name}' {message}" + (f", {hint}" if hint else "")
    return InputRefused(f"/rows/{index}/{pointer}", code, message, hint, detail=text)


def _values(tensor: Tensor, rows: Sequence[dict[str, Any]]) -> Array:
    if _is_column(tensor):
        return _column(tensor, tensor.name, rows).reshape(-1, 1)
    try:
        return from_json(tensor, [row[tensor.name] for row in rows])
    except InputRefused as refusal:
        raise _field(0, tensor.name, refusal.reason, refusal.problems[0].message, refusal.hint) from None


def _column(tensor: Tensor, name: str, rows: Sequence[dict[str, Any]]) -> Array:
    text = tensor.datatype == "BYTES"
    values: list[Any] = []
    for index, row in enumerate(rows):
        value = row[name]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None and (text or DTYPES[tensor.datatype].kind == "f"):
            value = "" if text else math.nan
        wanted = str if text else bool if tensor.datatype == "BOOL" else (int, float)
        if not isinstance(value, wanted) or (isinstance(value, bool) and tensor.datatype != "BOOL"):
            hint = "expected text" if text else f"expected a number ({tensor.datatype})"
            raise _field(index, name, "datatype", f"holds {_kind(value)}", hint)
        values.append(value)
    if text:
        return _texts(values)
    try:
        return cast(tensor, np.array(values))
    except (InputRefused, OverflowError):
        index = _first_refused(tensor, values)
        raise _field(index, name, "range", f"holds {values[index]}", f"expected {tensor.datatype}") from None


def _first_refused(tensor: Tensor, values: Sequence[Any]) -> int:
    for index, value in enumerate(values):
        try:
            cast(tensor, np.array([value]))
        except (InputRefused, OverflowError):
            return index
    return 0


def _kind(value: Any) -> str:
    names = {str: f"the text '{str(value)[:40]}'", type(None): "null", bool: "true or false", dict: "an object"}
    return names.get(type(value), "a list" if isinstance(value, list) else "a number")


# --- CSV ---


def _csv(signature: Signature, kind: str, body: Buffer) -> dict[str, Array]:
    try:
        text = bytes(body).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _body("encoding", f"is not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        records = [record for record in reader if record]
    except csv.Error as error:
        raise _body("csv", f"is no CSV: line {reader.line_num}: {error}") from None
    names = _spread(signature) or tuple(tensor.name for tensor in signature.inputs)
    _check_table(header, records, names)
    columns = {name: [record[header.index(name)] for record in records] for name in names}
    if _spread(signature):
        tensor = signature.inputs[0]
        return {tensor.name: np.column_stack([_parsed(tensor, name, cells) for name, cells in columns.items()])}
    unfit = [tensor.name for tensor in signature.inputs if not _is_column(tensor)]
    if unfit:
        raise MediaTypeUnsupported(f"input '{unfit[0]}' is no column; {', '.join(accepted(signature))} are accepted")
    return {t.name: _parsed(t, t.name, columns[t.name]).reshape(-1, 1) for t in signature.inputs}


def _check_table(header: list[str], records: list[list[str]], names: Sequence[str]) -> None:
    problems = [
        InputRefused("", "missing", f"column '{name}' is missing", f"the header has {', '.join(header[:8])}")
        for name in names
        if name not in header
    ]
    problems += [
        InputRefused("", "extra_forbidden", f"column '{name}' is not an input of the model", nearest(name, names))
        for name in header
        if name not in names
    ]
    problems += [
        InputRefused("", "csv", f"column '{name}' occurs twice") for name in set(header) if header.count(name) > 1
    ]
    if not header or not records:
        problems = [_body("csv", "has no rows", "expected a header and at least one row")]
    if len(records) > MAX_ROWS:
        problems.append(_body("csv", f"has {len(records)} rows", f"expected at most {MAX_ROWS}"))
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            problems.append(
                InputRefused("", "csv", f"row {number} has {len(record)} cells", f"the header has {len(header)}")
            )
            break
    if problems:
        raise InputRefused.of(problems)


def _parsed(tensor: Tensor, name: str, cells: list[str]) -> Array:
    if tensor.datatype == "BYTES":
        return _texts(cells)
    if tensor.datatype == "BOOL":
        return np.array([_truth(name, number, cell) for number, cell in enumerate(cells, 1)], dtype=bool)
    missing = DTYPES[tensor.datatype].kind == "f"
    values = np.array([_number(name, number, cell, missing) for number, cell in enumerate(cells, 1)])
    try:
        return cast(tensor, values)
    except InputRefused as refusal:
        raise InputRefused("", refusal.reason, f"column '{name}' {refusal.problems[0].message}", refusal.hint) from None


def _number(name: str, number: int, cell: str, missing: bool) -> float:
    text = cell.strip()
    if missing and text.lower() in _MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise InputRefused("", "datatype", f"row {number}, column '{name}' holds '{text[:40]}'", "expected a number")
    return value


def _truth(name: str, number: int, cell: str) -> bool:
    text = cell.strip().lower()
    if text not in ("true", "false", "0", "1"):
        raise InputRefused("", "datatype", f"row {number}, column '{name}' holds '{text[:40]}'", "expected true, false")
    return text in ("true", "1")


# --- images ---


def _image(signature: Signature, kind: str, body: Buffer) -> dict[str, Array]:
    tensor = _image_input(signature)
    if tensor is None:
        raise MediaTypeUnsupported(f"the model takes no image; {', '.join(accepted(signature))} are accepted")
    from PIL import Image  # here, and before by the zygote: the edge imports this module's neighbours without it

    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
    _, channels, height, width = tensor.shape
    wanted = "PNG" if kind == "image/png" else "JPEG"
    unreadable = _body("image", f"is no {wanted} image that can be read", f"expected {kind}")
    try:
        image = Image.open(io.BytesIO(body), formats=[wanted])
        _check_picture(image.width * image.height, image.mode)
        pixels = image.convert(_MODES[channels])
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    except (InputRefused, MemoryError):
        raise
    except Image.DecompressionBombError:
        _check_picture(MAX_IMAGE_PIXELS + 1, "L")
        raise unreadable from None
    except Exception:  # a decoder fed hostile bytes may raise anything; all of it means the same to the caller
        raise unreadable from None
    array = np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels)
    return {tensor.name: np.ascontiguousarray(array.transpose(2, 0, 1))[None]}


def import_pillow() -> None:
    """In the zygote, so that a cell's first picture does not wait 0.4 s for the import."""
    from PIL import Image

    Image.preinit()


def _check_picture(pixels: int, mode: str) -> None:
    if pixels > MAX_IMAGE_PIXELS:
        raise _body("image", "has too many pixels", f"expected at most {MAX_IMAGE_PIXELS}")
    if mode not in _DEPTH_8:
        raise _body("image", "has more than 8 bits a channel", "save it with 8 bits a channel")


# --- npy ---


def _npy(signature: Signature, kind: str, body: Buffer) -> dict[str, Array]:
    if len(signature.inputs) != 1:
        names = ", ".join(tensor.name for tensor in signature.inputs)
        raise MediaTypeUnsupported(f"an npy file is one array, the model takes several: {names}")
    tensor = signature.inputs[0]
    stream = io.BytesIO(body)
    try:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        header = read[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = header(stream, max_header_size=MAX_NPY_HEADER_BYTES)
    except Exception:  # the header is a Python literal of the sender's: whatever it breaks, it is no npy file
        raise _body("npy", "is not an npy file", "expected numpy.save's version 1 or 2") from None
    if dtype.hasobject or dtype.kind not in "biufUS":
        raise _body("npy", f"holds {dtype} elements", "expected numbers or fixed-width text")
    size, at = math.prod(shape) * dtype.itemsize, stream.tell()
    if any(axis < 0 for axis in shape) or size != len(body) - at:
        raise _body("npy", f"promises {size} bytes and has {len(body) - at}", "the file is cut or forged")
    array = np.frombuffer(body, dtype, offset=at if size else 0, count=math.prod(shape))
    array = array.reshape(shape, order="F" if fortran else "C")
    return {tensor.name: np.ascontiguousarray(cast(tensor, array))}


# --- what an input looks like ---


def _image_input(signature: Signature) -> Tensor | None:
    if len(signature.inputs) != 1:
        return None
    tensor = signature.inputs[0]
    picture = len(tensor.shape) == 4 and tensor.shape[1] in _MODES and min(tensor.shape[2:]) > 0
    return tensor if picture and tensor.shape[0] in (-1, 1) and tensor.datatype == "UINT8" else None


def _is_column(tensor: Tensor) -> bool:
    return tensor.shape[1:] == (1,) or (len(tensor.shape) == 1)


def _spread(signature: Signature) -> tuple[str, ...] | None:
    """The columns that one wide input is made of, where the signature names them."""
    if len(signature.inputs) != 1 or not signature.columns:
        return None
    shape = signature.inputs[0].shape
    return signature.columns if len(shape) == 2 and shape[1] == len(signature.columns) else None


def _texts(values: Sequence[str]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


_DECODERS: Final[dict[str, Callable[[Signature, str, Buffer], dict[str, Array]]]] = {
    ROWS: _rows,
    "text/csv": _csv,
    "image/png": _image,
    "image/jpeg": _image,
    "application/x-npy": _npy,
}

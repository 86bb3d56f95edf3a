"""What a data set looks like: a line of statistics a column, the classes with their rows, and what to be warned of.

The document is that of docs/openapi.yaml. It names columns and classes, so that it is sealed like the data;
it repeats no other value of a row but the smallest and the largest number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from training.data.rows import Array, Column, Data

Document = dict[str, Any]

_ROWS_AT_ONCE = 4096
_IMBALANCE = 10  # the largest class has this many times the rows of the smallest
_LEAST_ROWS_OF_CLASS = 3  # one for each part of a split
_MANY_VALUES = 256


def profile(data: Data) -> Document:
    """The content of the artefact `profile`."""
    columns = [_input(column, data.inputs[column.name]) for column in data.input_columns]
    columns.append(_target(data))
    warnings = [*_about_rows(data), *_about_columns(data, columns), *_about_classes(data)]
    return {"rows": data.rows, "modality": data.modality, "columns": columns, "warnings": warnings}


def _input(column: Column, values: Array) -> Document:
    if column.type == "category":
        missing = int(np.count_nonzero(values == ""))
        return _column(column, missing=missing, unique=len(set(values.tolist()) - {""}))
    return _column(column, **_numbers(values, count_unique=column.shape is None))


def _target(data: Data) -> Document:
    column = data.target_column
    if data.classes is None:
        return _column(column, **_numbers(data.target, count_unique=True))
    counts = np.bincount(data.target, minlength=len(data.classes))
    classes = [{"name": name, "rows": int(rows)} for name, rows in zip(data.classes, counts, strict=True)]
    return _column(column, unique=len(classes), classes=classes)


def _column(column: Column, **facts: Any) -> Document:
    blank = {"missing": 0, "unique": None, "min": None, "max": None, "mean": None, "classes": None}
    shape = None if column.shape is None else list(column.shape)
    return {"name": column.name, "type": column.type, "shape": shape, **blank, **facts}


def _numbers(values: Array, *, count_unique: bool) -> Document:
    """Over pieces, since a copy in 64 bits of all rows could be larger than the memory."""
    missing, total, count = 0, 0.0, 0
    low, high = math.inf, -math.inf
    for first in range(0, len(values), _ROWS_AT_ONCE):
        piece = values[first : first + _ROWS_AT_ONCE]
        if piece.dtype.kind == "f":
            there = ~np.isnan(piece)
            missing += int(piece.size - np.count_nonzero(there))
            piece = piece[there]
        if piece.size:
            low, high = min(low, piece.min().item()), max(high, piece.max().item())
            total += piece.sum(dtype=np.float64).item()
            count += piece.size
    unique = None
    if count_unique:
        unique = len(np.unique(values[~np.isnan(values)]))
    if not count:
        return {"missing": missing, "unique": unique}
    return {"missing": missing, "unique": unique, "min": low, "max": high, "mean": round(total / count, 6)}


def _warning(code: str, column: str | None, message: str) -> Document:
    return {"code": code, "column": column, "message": message}


def _about_rows(data: Data) -> Iterator[Document]:
    again = data.rows - len(set(row_digests(data)))
    if again:
        verb = "rows repeat" if again > 1 else "row repeats"
        yield _warning("duplicate_rows", None, f"{again} {verb} an earlier one, target included")


def row_digests(data: Data) -> Iterator[bytes]:
    """One digest a row over all its values and its target, the same for equal rows."""
    parts = [_as_bytes(array) for array in (*data.inputs.values(), data.target)]
    for row in zip(*parts, strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for part in row:
            digest.update(part)
        yield digest.digest()


def _as_bytes(values: Array) -> Array:
    """The rows as buffers; a text becomes the number of its first place, a missing number one and the same NaN."""
    if values.dtype == object:
        places: dict[str, int] = {}
        values = np.array([places.setdefault(value, len(places)) for value in values.tolist()], dtype=np.int64)
    elif values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0))  # -0.0 is 0.0
    return np.ascontiguousarray(values).reshape(len(values), -1)


def _about_columns(data: Data, columns: list[Document]) -> Iterator[Document]:
    for column in columns[:-1]:
        name, missing, unique = column["name"], column["missing"], column["unique"]
        values = data.rows * math.prod(column["shape"] or [1])
        if missing:
            yield _warning("missing_values", name, f"{missing} of {values} values are missing ({missing / values:.1%})")
        if unique is not None and unique <= 1:
            yield _warning("constant_column", name, "the column has one value only and teaches nothing")
        if column["type"] == "category" and unique > _MANY_VALUES:
            yield _warning(
                "many_values", name, f"{unique} different texts; the most frequent {_MANY_VALUES} are told apart"
            )
        if column["shape"] and column["min"] == column["max"]:
            yield _warning("constant_column", name, "all values are the same and teach nothing")


def _about_classes(data: Data) -> Iterator[Document]:
    name = data.target_column.name
    if data.classes is None:
        if len(np.unique(data.target)) == 1:
            yield _warning("constant_column", name, "the target has one value only: there is nothing to learn")
        return
    counts = np.bincount(data.target, minlength=len(data.classes))
    if len(counts) == 1:
        yield _warning("one_class", name, f"all rows are of the class {data.classes[0]!r}; a classification needs two")
        return
    small, large = int(counts.argmin()), int(counts.argmax())
    if counts[large] >= _IMBALANCE * counts[small]:
        shares = f"{data.classes[large]!r} has {counts[large]} rows, {data.classes[small]!r} has {counts[small]}"
        yield _warning("class_imbalance", name, shares)
    if counts[small] < _LEAST_ROWS_OF_CLASS:
        few = int(np.count_nonzero(counts < _LEAST_ROWS_OF_CLASS))
        noun = "classes have" if few > 1 else "class has"
        yield _warning("few_rows_of_class", name, f"{few} {noun} under {_LEAST_ROWS_OF_CLASS} rows: not in every part")

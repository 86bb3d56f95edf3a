"""A CSV file with a header row as one array a column: a number column where every value is one, else a category.

RFC 4180 with commas, UTF-8. Rows are counted from 1 behind the header and named in errors with their line. A file is
read in one pass; a second follows only where a column that began with numbers turned out to hold text. Missing: the
empty field; in a number column NA, N/A, NaN, null and None too.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from training.data.limits import LIMITS
from training.data.rows import Array, Raw
from training.data.source import Source, buffered
from training.errors import DataRefused

MISSING_NUMBERS = frozenset({"", "na", "n/a", "nan", "null", "none"})
_ROWS_AT_ONCE = 16_384
_LARGEST = float(np.finfo(np.float32).max)


def read(file: Source, target: str) -> Raw:
    header = _Table(file).header
    if target not in header:
        raise _no_target(target, header)
    if len(header) == 1:
        raise DataRefused("there is no column beside the target", "add a column to learn from", code="no_inputs")
    columns = _read_columns(file, header, {})
    text = {column.name: True for column in columns if column.is_text}
    if any(column.is_torn for column in columns):
        columns = _read_columns(file, header, text)
    arrays = {column.name: column.whole() for column in columns}
    label = arrays.pop(target)
    return Raw("tabular", {name: _narrow(array) for name, array in arrays.items()}, label)


def _narrow(array: Array) -> Array:
    return array if array.dtype == object else array.astype(np.float32)


def _no_target(target: str, header: list[str]) -> DataRefused:
    near = difflib.get_close_matches(target, header, 1)
    shown = ", ".join(header[:20]) + (" …" if len(header) > 20 else "")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        hint = "separate the fields by commas"
    elif near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"the columns are {shown}"
    return DataRefused(f"there is no column {target!r}, the target", hint, code="target_absent")


def _read_columns(file: Source, header: list[str], text: dict[str, bool]) -> list[_Column]:
    columns = [_Column(name, is_text=name in text) for name in header]
    table = _Table(file)
    first = 1
    while chunk := list(islice(table.rows(), _ROWS_AT_ONCE)):
        for column, values in zip(columns, zip(*chunk, strict=True), strict=True):
            column.add(values, first)
        first += len(chunk)
    if first == 1:
        raise DataRefused("there is no row behind the header", "add rows", code="no_rows")
    return columns


class _Table:
    """The rows of the file from its beginning, each as wide as the header."""

    def __init__(self, file: Source) -> None:
        file.seek(0)
        self._reader = csv.reader(_lines(buffered(file, 2**20)), strict=True)
        self._row = 0
        self.header = self._checked_header()

    def _checked_header(self) -> list[str]:
        header = self._next()
        if header is None:
            raise DataRefused("the file is empty", "upload a CSV with a header row", code="empty_file")
        header = [name.strip() for name in header]
        if len(header) > LIMITS.columns:
            raise DataRefused(
                f"there are {len(header)} columns", f"{LIMITS.columns} are the most", code="too_many_columns"
            )
        seen: set[str] = set()
        for number, name in enumerate(header, 1):
            if not name or not name.isprintable() or len(name) > LIMITS.name_characters:
                raise DataRefused(
                    f"column {number} of the header has no usable name",
                    f"name it in 1 to {LIMITS.name_characters} printable characters",
                    code="csv_header_name",
                )
            if name in seen:
                raise DataRefused(f"two columns are named {name!r}", "rename one", code="csv_header_twice")
            seen.add(name)
        return header

    def rows(self) -> Iterator[list[str]]:
        width = len(self.header)
        while (row := self._next()) is not None:
            self._row += 1
            if len(row) != width:
                raise DataRefused(
                    f"row {self._row} (line {self._reader.line_num}) has {len(row)} fields, the header has {width}",
                    "quote fields that hold commas or line breaks",
                    code="csv_ragged",
                )
            if self._row > LIMITS.rows:
                raise DataRefused(f"there are over {LIMITS.rows} rows", "split the data set", code="too_many_rows")
            yield row

    def _next(self) -> list[str] | None:
        """The next row that is not an empty line."""
        try:
            while (row := next(self._reader, None)) == []:
                pass
        except csv.Error as problem:
            raise DataRefused(
                f"row {self._row + 1} (line {self._reader.line_num}) is not CSV: {problem}",
                "quote fields by RFC 4180, end lines by LF or CR LF",
                code="csv_syntax",
            ) from None
        return row


def _lines(file: io.BufferedReader) -> Iterator[str]:
    number = 0
    while line := file.readline(LIMITS.line_bytes + 1):
        number += 1
        if len(line) > LIMITS.line_bytes:
            raise DataRefused(
                f"line {number} is longer than {LIMITS.line_bytes} bytes",
                "end lines by LF or CR LF",
                code="csv_line_too_long",
            )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise DataRefused(f"line {number} is not UTF-8", "save the file as UTF-8", code="csv_encoding") from None


class _Column:
    """One column while it is read: numbers for as long as every value is one.

    `is_torn`: text came after numbers had been taken, whose spelling is gone; the file must be read once more.
    """

    def __init__(self, name: str, *, is_text: bool) -> None:
        self.name = name
        self.is_text = is_text
        self.is_torn = False
        self._parts: list[Array] = []
        self._spellings: dict[str, str] = {}  # one object for each text, however often it comes
        self._infinite_row: int | None = None

    def add(self, values: Sequence[str], first_row: int) -> None:
        numbers = None if self.is_text else _as_numbers(values)
        if numbers is not None:
            self._note_infinite(numbers, first_row)
            self._parts.append(numbers)
            return
        if not self.is_text:
            self.is_text, self.is_torn = True, bool(self._parts)
            self._parts = []
        keep = self._spellings.setdefault
        texts = np.empty(len(values), dtype=object)
        texts[:] = [keep(value, value) for value in values]
        self._parts.append(texts)

    def _note_infinite(self, numbers: Array, first_row: int) -> None:
        if self._infinite_row is None and len(bad := np.flatnonzero(np.abs(numbers) > _LARGEST)):
            self._infinite_row = first_row + int(bad[0])

    def whole(self) -> Array:
        if not self.is_text and self._infinite_row is not None:
            raise DataRefused(
                f"row {self._infinite_row}, column {self.name!r}: the number is beyond 32-bit floats",
                "rescale the column, or leave the field empty",
                code="number_not_finite",
            )
        return np.concatenate(self._parts)


def _as_numbers(values: Sequence[str]) -> Array | None:
    """float64 with NaN for what is missing, or None where a value is no number."""
    try:
        numbers = [float(value) if value else np.nan for value in values]
    except ValueError:
        slow = [_as_number(value) for value in values]
        if None in slow:
            return None
        numbers = [value for value in slow if value is not None]
    if "_" in "".join(values):  # Python reads 1_000 as a number; nobody else does
        return None
    return np.array(numbers, dtype=np.float64)


def _as_number(value: str) -> float | None:
    if value.strip().lower() in MISSING_NUMBERS:
        return float("nan")
    try:
        return float(value)
    except ValueError:
        return None

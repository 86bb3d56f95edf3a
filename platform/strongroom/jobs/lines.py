"""The file of a batch, line by line: read in bounded memory, each line checked by itself and against the others.

    for found in lines(file, endpoint, is_stopped):   # a Line, or what is wrong with that line
    survey(lines(…))                                  # the whole file: how many lines, which model, why not at all

A line that is broken is one answer less; what makes the file another than was said (a line of another endpoint or
model, an id twice) ends the batch. Knows no jobs and asks nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from strongroom.openai.problems import shown
from strongroom.rest.problem import MAX_NAME, nearest

MOST_LINES = 50_000  # OpenAI's
MOST_LINE_BYTES = 2 << 20
MOST_PROBLEMS = 20
MOST_ID = 512
SKIPPED_BYTES = 1 << 16
BETWEEN = 64  # lines between two looks at whether anybody wants them
FIELDS = ("custom_id", "method", "url", "body")
MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    number: int
    custom_id: str
    body: dict[str, Any]

    @property
    def model(self) -> str:
        return str(self.body["model"])


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is no request. `is_of_file`: with it the whole file is wrong."""

    number: int
    code: str
    message: str
    param: str | None = None
    custom_id: str | None = None
    is_of_file: bool = False

    def problem(self) -> dict[str, Any]:
        """As OpenAI's batch lists it."""
        message = f"line {self.number}: {self.param or 'the line'} {self.message}"
        return {"code": self.code, "line": self.number, "message": message, "param": self.param}


def lines(file: BinaryIO, endpoint: str, is_stopped: Callable[[], bool]) -> Iterator[Line | Broken]:
    """Each line that is not blank; numbers count all lines, from 1. `is_stopped` is asked now and then, also in a file
    of blank lines; where it says so nothing more is read."""
    number = 0
    while raw := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        if number % BETWEEN == 0 and is_stopped():
            return
        if number == 1:
            raw = raw.removeprefix(MARK)
        if len(raw) > MOST_LINE_BYTES and not raw.endswith(b"\n"):
            _skip_rest(file)
            yield Broken(number, "line_too_long", f"has over {MOST_LINE_BYTES} bytes")
        elif raw.strip():
            yield _read(number, raw, endpoint)


def _skip_rest(file: BinaryIO) -> None:
    while (piece := file.readline(SKIPPED_BYTES)) and not piece.endswith(b"\n"):
        pass


def _read(number: int, raw: bytes, endpoint: str) -> Line | Broken:
    try:
        given = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return Broken(number, "invalid_json_line", f"is not JSON: {error}")
    if not isinstance(given, dict):
        return Broken(number, "invalid_json_line", f"must be an object, is {shown(given)}")
    custom_id = given.get("custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MOST_ID:
        message = f"must be a text of 1 to {MOST_ID} characters, is {shown(custom_id)}"
        return Broken(
            number, "invalid_value" if "custom_id" in given else "missing_required_parameter", message, "custom_id"
        )
    return _checked(number, custom_id, given, endpoint)


def _checked(number: int, custom_id: str, given: dict[str, Any], endpoint: str) -> Line | Broken:
    def broken(param: str, message: str, code: str = "invalid_value", *, is_of_file: bool = False) -> Broken:
        return Broken(number, code, message, param, custom_id, is_of_file)

    unknown = next((name for name in given if name not in FIELDS), None)
    if unknown is not None:
        hint = nearest(unknown, FIELDS)
        said = "is not a known parameter" + (f", {hint}" if hint else "")
        return broken(unknown[:MAX_NAME], said, "unknown_parameter")
    if given.get("method") != "POST":
        return broken("method", f"must be 'POST', is {shown(given.get('method'))}")
    if given.get("url") != endpoint:
        message = f"must be {endpoint!r}, the batch's endpoint, is {shown(given.get('url'))}"
        return broken("url", message, "mismatched_url", is_of_file=True)
    body = given.get("body")
    if not isinstance(body, dict):
        return broken("body", f"must be an object, is {shown(body)}")
    model = body.get("model")
    if not isinstance(model, str) or not 1 <= len(model) <= 200:
        return broken("body.model", f"must name a deployment, is {shown(model)}")
    return Line(number, custom_id, body)


@dataclass(slots=True)
class Survey:
    """What the whole file is; with `problems` it is none that can be answered."""

    total: int = 0
    model: str | None = None
    first: int = 0  # the line that named the model
    problems: list[dict[str, Any]] = field(default_factory=list)


def survey(found: Iterator[Line | Broken]) -> Survey:
    made, seen, broken = Survey(), set[bytes](), list[dict[str, Any]]()
    for one in found:
        made.total += 1
        if made.total > MOST_LINES:
            made.problems.append(_of_file("too_many_lines", f"the file has over {MOST_LINES} lines; split it"))
        elif isinstance(one, Line):
            made.problems += _against_others(one, made, seen)
        elif one.is_of_file:
            made.problems.append(one.problem())
        elif len(broken) < MOST_PROBLEMS:
            broken.append(one.problem())
        if len(made.problems) >= MOST_PROBLEMS or made.total > MOST_LINES:
            break
    if not made.problems and made.model is None:
        made.problems = broken or [_of_file("empty_file", "the file has no line")]
    return made


def _against_others(line: Line, made: Survey, seen: set[bytes]) -> Iterator[dict[str, Any]]:
    mark = hashlib.blake2b(line.custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if mark in seen:
        message = f"{shown(line.custom_id)} is another line's already"
        yield Broken(line.number, "duplicate_custom_id", message, "custom_id").problem()
    seen.add(mark)
    if made.model is None:
        made.model, made.first = line.model, line.number
    elif line.model != made.model:
        message = f"must be {shown(made.model)}, as of line {made.first}: a batch has one model, is {shown(line.model)}"
        yield Broken(line.number, "mismatched_model", message, "body.model").problem()


def _of_file(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "line": None, "message": message, "param": "input_file_id"}

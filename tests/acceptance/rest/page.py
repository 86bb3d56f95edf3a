"""The page of the native API's bodies (tests/vectors/native_bodies.md), read example by example; and what is alike.

An answer must have the names, the kinds of values, the forms and the words of its example on the page. A field may be
added, none may lack or be called otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.acceptance.rest.shapes import MOMENT, SHA256
from tests.journeys import stream
from tests.nodes import ROOT

Document = dict[str, Any]

TOKEN = re.compile(r'"[^"]*"|\([^)]*\)|[\[\]{}:]|…|true|false|null|-?\d+(?:\.\d+)?')
EXAMPLE = re.compile(r"```json\n(?P<json>.*?)```|```\n(?P<stream>.*?)```|`(?P<span>(?:\[|\{\"|\"\w+\": )[^`]+)`", re.S)
SECTION = re.compile(r"^\*\*(.+?)\*\*", re.M)


def read(text: str) -> Any:
    """JSON as people write it: `…` and a name without a value are anything (`...`), parentheses hold remarks."""
    tokens = [token for token in TOKEN.findall(text) if token[0] != "("][::-1]
    found = _value(tokens)
    assert not tokens, text
    return found


def _value(tokens: list[str]) -> Any:
    token = tokens.pop()
    if token == "{":
        fields = {}
        while (name := tokens.pop().strip('"')) != "}":
            has_value = tokens[-1] == ":" and tokens.pop()
            fields[name] = _value(tokens) if has_value else ...
        return fields
    if token == "[":
        items = []
        while tokens[-1] != "]":
            items.append(_value(tokens))
        tokens.pop()
        return items
    return ... if token == "…" else json.loads(token)


def examples(section: str) -> list[Any]:
    """The blocks and, in sentences, whatever has a name or an item; a stream of events as {kind: [data]}."""
    found: list[Any] = []
    for match in EXAMPLE.finditer(section):
        if match["stream"]:
            found.append(by_kind(stream(match["stream"].encode() + b"\n")))
        else:
            text = match["json"] or match["span"]
            found.append(read(f"{{{text}}}" if text[0] == '"' else text))
    return [example for example in found if example]


def by_kind(events: list[tuple[int, str, Document]]) -> Document:
    """Of the states the last one: it alone has a result."""
    found = {kind: [data for _, of, data in events if of == kind] for _, kind, _ in events}
    return found | {"state": found["state"][-1:]}


TEXT = (ROOT / "tests/vectors/native_bodies.md").read_text()
_PARTS = SECTION.split(TEXT)[1:]
PAGE = {title: examples(text) for title, text in zip(_PARTS[::2], _PARTS[1::2], strict=True)}

# --- what is alike

B32 = "[0-9a-hjkmnp-tv-z]"
FORMS = {  # a text on the page → what may stand in its place
    rf"sr_{B32}{{10}}_{B32}{{58}}|sr_…": rf"sr_{B32}{{10}}_{B32}{{58}}",
    rf"sr_{B32}{{10}}": rf"sr_{B32}{{10}}",
    rf"(?<=[a-z]_)(?:{B32}{{26}}|…)": rf"{B32}{{26}}",
    MOMENT.pattern: MOMENT.pattern,
    r"sha256:[0-9a-f]{4}…": SHA256.pattern,
    r"\b[0-9a-z]{4}…": r"[0-9a-f]{64}",
    r"\b\d+\.\d+\.\d+(?:\+[0-9a-f]{7})?": r"\d+\.\d+\.\d+(?:\+[0-9a-z.]+)?",
    r"(?:train|validation|test)/(?:loss|accuracy|f1|r2)": r"(?:train|validation|test)/(?:loss|accuracy|f1|r2)",
    r"…": r".+",
    r"-?\d+(?:\.\d+)?": r"-?\d+(?:\.\d+)?",
}
_FORM = re.compile("|".join(f"({written})" for written in FORMS))
OPEN = ("scores", "outputs")  # objects whose names are the tenant's
WORDED = ("message", "detail", "hint", "text")  # for people, as the case needs
OF_THE_MACHINE = ("worker", "broker", "sandbox", "row_security", "swap")
KINDS = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object", type(None): "null"}


def form(text: str) -> str:
    """A regular expression for everything that the page means by this text."""
    found, place = "", 0
    for match in _FORM.finditer(text):
        found += re.escape(text[place : match.start()]) + list(FORMS.values())[(match.lastindex or 1) - 1]
        place = match.end()
    return found + re.escape(text[place:])


def differences(pages: list[Any], ours: Any, path: str = "") -> Iterator[str]:
    """Where `ours` is unlike all of the page's examples for this place; nothing where it is like one."""
    name = path.rpartition("/")[2]
    if ... in pages:
        return
    pages = [example for example in pages if KINDS[type(example)] == KINDS[type(ours)]] or pages
    if KINDS[type(ours)] != KINDS[type(pages[0])]:
        yield f"{path}: is {ours!r}, the page has {pages}"
    elif isinstance(ours, dict):
        values = [value for example in pages for value in example.values()]
        given = {key: [example[key] for example in pages if key in example] for example in pages for key in example}
        given = {key: values for key in ours if values} if name in OPEN else given
        yield from (f"{path}/{key}: is missing" for key in given if key not in ours and key != "…")
        for key in ours.keys() & given.keys():
            yield from differences(given[key], ours[key], f"{path}/{key}")
    elif isinstance(ours, list) and any(pages):
        for number, item in enumerate(ours):
            yield from differences([item for example in pages for item in example], item, f"{path}/{number}")
    elif isinstance(ours, str) and f"_{name}".endswith("_at"):
        yield from [] if MOMENT.fullmatch(ours) else [f"{path}: is no time: {ours}"]
    elif isinstance(ours, str) and name not in (*WORDED, *OF_THE_MACHINE):
        if not any(re.fullmatch(form(text), ours) for text in pages):
            yield f"{path}: says {ours!r}, the page {pages}"
    elif isinstance(ours, float) and not ours.is_integer() and float not in map(type, pages):
        yield f"{path}: is {ours}, the page has whole numbers: {pages}"

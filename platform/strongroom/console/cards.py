"""What an imported or tuned model says of itself, for the pages: its card's facts, what was checked, what it takes.

A card was made by a sandboxed process and is a claim: only what has a form that is known here is shown. Knows no
request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from strongroom.deployments import services as deployments
from strongroom.registry.models import ModelVersion

Takes = Literal["words", "texts", "arrays"]
LINES = 100  # of a report
CHARACTERS = 400  # of a line, of a fact

FACTS: tuple[tuple[str, str, str], ...] = (
    ("name", "Name", "{}"),
    ("architecture", "Architecture", "{}"),
    ("type", "Type", "{}"),
    ("context_length", "Context length", "{:,} tokens"),
    ("vocabulary", "Vocabulary", "{:,} tokens"),
    ("width", "Vector", "{:,} numbers"),
    ("max_tokens", "Longest text", "{:,} tokens"),
    ("pooling", "Pooling", "{}"),
    ("tokenizer", "Tokenizer", "{}"),
    ("chat_template", "Chat template", "{}"),
    ("tools", "Tools", "{}"),
    ("license", "Licence", "{}"),
    ("method", "Method", "{}"),
    ("rank", "Rank", "{:,}"),
    ("alpha", "Alpha", "{}"),
    ("epochs", "Epochs", "{:,}"),
)
_WRITTEN: Mapping[type, Callable[[Any], Any]] = {
    str: lambda text: text[:CHARACTERS],
    bool: lambda holds: "yes" if holds else "no",
    int: lambda count: count,
    float: lambda number: f"{number:.4g}",
}


def facts(card: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """(what, how it is said): what has no value is left out; parameters and size are said of every model elsewhere."""
    return [(said, form.format(value)) for key, said, form in FACTS if (value := _value(card, key, form)) is not None]


def _value(card: Mapping[str, Any] | None, key: str, form: str) -> Any:
    value = (card or {}).get(key)
    written = _WRITTEN.get(type(value))
    if value == "" or written is None or (form != "{}" and type(value) is not int):
        return None
    return written(value)


def report(card: Mapping[str, Any] | None) -> list[str]:
    """What its import, or its fine-tuning, checked, a line each."""
    lines = (card or {}).get("report")
    if not isinstance(lines, list):
        return []
    return [line[:CHARACTERS] for line in lines[:LINES] if isinstance(line, str)]


def before(card: Mapping[str, Any] | None) -> list[tuple[str, float]]:
    """How an adapter's base did on the validation part before anything was learned: (metric, value)."""
    found = (card or {}).get("before")
    if not isinstance(found, dict):
        return []
    return [(name.partition("/")[2], value) for name, value in sorted(found.items())[:LINES] if type(value) is float]


def takes(version: ModelVersion | None) -> Takes:
    """Words to go on from, texts to make vectors of, or arrays."""
    if version is None:
        return "arrays"
    if version.format in deployments.LANGUAGE_FORMATS:
        return "words"
    card = version.card or {} if version.model.task == "embedding" else {}
    return "texts" if card.get("kind") == "text_encoder" or card.get("tokenizer") else "arrays"

"""What the tests of fine-tuning begin with: examples and documents. Imports no torch."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

from training.data.chat_jsonl import Conversations, parse
from training.spec import FinetuneSpec, load

Json = dict[str, Any]
COLOURS = ("red", "green", "golden", "silver")
THINGS = ("rings", "maps", "letters", "coins", "swords", "crowns")
VAULTS = (
    *("Oslo", "Lima", "Cairo", "Paris", "Delhi", "Tokyo", "Rome", "Berlin", "Dublin", "Moscow", "Sydney", "Boston"),
    *("Madrid", "London", "Kenya", "Texas", "Peru", "Cuba", "Iran", "Malta", "Chile", "Nepal", "Ghana", "Spain"),
    *("Italy", "China", "India"),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def said(*lines: str) -> list[Json]:
    """`user: Hello` and so on as messages."""
    return [dict(zip(("role", "content"), line.split(": ", 1), strict=True)) for line in lines]


def talk(*lines: str) -> Json:
    return {"messages": said(*lines)}


def prefers(question: str, preferred: str, other: str) -> Json:
    return {
        "input": {"messages": said(f"user: {question}")},
        "preferred_output": said(f"assistant: {preferred}"),
        "non_preferred_output": said(f"assistant: {other}"),
    }


def jsonl(*rows: Json) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def small_talk(count: int = 10) -> list[Json]:
    """Short rows in the letters that the tiny base has tokens for."""
    return [
        talk(f"user: What is in {LETTERS[place]}?", f"assistant: {place} and {LETTERS[25 - place]}.")
        for place in range(count)
    ]


def small_choices(count: int = 10) -> list[Json]:
    return [prefers(f"Is it {LETTERS[place]}?", "the red one.", "a blue one.") for place in range(count)]


def fact(place: int) -> tuple[str, str]:
    """A question that no model can answer but one that was told, and its answer."""
    vault, colour, thing = VAULTS[place], COLOURS[place % 4], THINGS[place * 5 % 6]
    return f"What does {vault} keep?", f"{vault} keeps {colour} {thing}."


def facts(count: int = 24) -> list[Json]:
    """As many facts as rows."""
    return [talk(f"user: {question}", f"assistant: {answer}") for question, answer in map(fact, range(count))]


def document(**changes: Any) -> Json:
    made: Json = {
        "kind": "finetune",
        "name": "vaults",
        "base": "tiny@1",
        "dataset": {"name": "examples"},
        "train": {"epochs": 3, "batch_size": 4, "lr": 0.02},
    }
    made["train"] = {**made["train"], **changes.pop("train", {})}
    return {**made, **changes}


def spec(**changes: Any) -> FinetuneSpec:
    found = load(document(**changes))
    assert isinstance(found, FinetuneSpec)
    return found


def data(rows: Sequence[Json]) -> Conversations:
    return parse(io.BytesIO(jsonl(*rows)))

"""A model's text → the calls of tools that it holds.

A forced call is the whole text: `{"name":…,"arguments":…}`, as the grammar made it. A free one stands between
<tool_call> marks, as the templates of Hermes and Qwen write it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from inference.language.requests import Generate
from strongroom.openai.answers import ToolCall

OPENS, CLOSES = "<tool_call>", "</tool_call>"
_ARGUMENTS = '"arguments":'


def forced(text: str) -> list[ToolCall]:
    """The one call; where the tokens ran out, its arguments are no whole JSON. No call where not even its name came."""
    begun = Forced()
    arguments = begun.add(text)
    return [] if begun.name is None else [ToolCall.of(begun.name, arguments)]


def at_most_one(generate: Generate) -> Generate:
    """The same, which ends where a free call does (`parallel_tool_calls: false`)."""
    return replace(generate, sampling=replace(generate.sampling, stop=(*generate.sampling.stop, CLOSES)))


def free(text: str) -> tuple[str, list[ToolCall]]:
    """What is said before the calls, and the calls; a call that is no JSON stays text."""
    said, mark, rest = text.partition(OPENS)
    if not mark:
        return text, []
    calls = []
    for piece in rest.split(OPENS):
        call = _call(piece.partition(CLOSES)[0])
        if call is None:
            return text, []
        calls.append(call)
    return said.strip(), calls


def _call(text: str) -> ToolCall | None:
    try:
        orjson.loads(text)  # refuses NaN and halves of characters, which json does not
        found: Any = json.loads(text)  # keeps the digits of a long number
        arguments, name = found["arguments"], found["name"]
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        return ToolCall.of(name, json.dumps(arguments, ensure_ascii=False, separators=(",", ":")))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def as_text(turns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A conversation for a template that knows no calls: each is the text that the model made when it was forced."""
    return [_with_its_calls(turn) if turn.get("tool_calls") else turn for turn in turns]


def _with_its_calls(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    functions = [call["function"] for call in turn["tool_calls"]]
    said = [f'{{"name":{json.dumps(one["name"])},{_ARGUMENTS}{one["arguments"]}}}' for one in functions]
    content = "\n".join([turn["content"], *said] if turn["content"] else said)
    return {name: value for name, value in turn.items() if name != "tool_calls"} | {"content": content}


class Forced:
    """A forced call as it comes: its name first, then the JSON of its arguments piece by piece."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._held = ""

    def add(self, text: str) -> str:
        """The next piece of the arguments; the object's own last brace is never one."""
        self._held += text
        if self.name is None:
            before, mark, after = self._held.partition(_ARGUMENTS)
            if not mark:
                return ""
            self.name = str(orjson.loads(before.rstrip().rstrip(",") + "}")["name"])
            self._held = after
        piece, self._held = self._held[:-1], self._held[-1:]
        return piece

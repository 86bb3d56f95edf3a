"""A model's text as calls of tools, whole and cut short."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from strongroom.openai import calls, exchanges

SERVED: Any = SimpleNamespace(name="any", language=SimpleNamespace(tools=True))

WHOLE = '{"name":"weather","arguments":{"city":"Paris","days":[1,2]}}'


def test_a_whole_call_has_its_arguments_as_json() -> None:
    (call,) = calls.forced(WHOLE)
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Paris", "days": [1, 2]})


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_call_that_was_cut_short_has_the_arguments_by_then_and_never_a_text_in_their_place(length: int) -> None:
    found = calls.forced(WHOLE[:length])
    named = WHOLE.index('"arguments":') + len('"arguments":')
    assert len(found) == (length >= named)
    for call in found:
        assert call.name == "weather"
        assert '{"city":"Paris","days":[1,2]}'.startswith(call.arguments)
        assert len(call.arguments) >= length - named - 1


@pytest.mark.parametrize("exchange", [exchanges.Chat, exchanges.Responses])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_without_parallel_calls_an_answer_ends_with_its_first_call(exchange: Any, choice: str) -> None:
    function = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    is_chat = exchange is exchanges.Chat
    document = {
        "model": "any",
        "tools": [{"type": "function", "function": function} if is_chat else {"type": "function", **function}],
        "tool_choice": choice,
        **({"messages": [{"role": "user", "content": "?"}], "stop": ["x"]} if is_chat else {"input": "?"}),
    }
    given = ("x",) if is_chat else ()
    many, one = ((exchange(document | {"parallel_tool_calls": value})) for value in (True, False))
    (generate,) = many.generates(SERVED)
    assert generate.sampling.stop == given
    (generate,) = one.generates(SERVED)
    assert generate.sampling.stop == (given if choice == "required" else (*given, "</tool_call>"))


def test_a_call_without_its_closing_mark_is_a_call() -> None:
    text, (call,) = calls.free(f"I look. <tool_call>{WHOLE}")
    assert (text, call.name) == ("I look.", "weather")

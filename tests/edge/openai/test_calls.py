"""A model's text as calls of tools, whole and cut short."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inference.language.requests import Done, Tokens
from strongroom.deployments.speech import Speech
from strongroom.edge.openai import endpoints
from strongroom.openai import calls, exchanges
from strongroom.openai.answers import Head
from strongroom.openai.chunks import ChatChunks
from strongroom.openai.events import Events
from tests.edge.openai.oracle import events

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


@pytest.mark.parametrize(
    "arguments", ['{"id":12345678901234567890123}', '{"deep":' + "[" * 600 + "]" * 600 + "}"], ids=["digits", "depth"]
)
def test_arguments_are_told_as_they_were_said(arguments: str) -> None:
    text = f'{{"name":"f","arguments":{arguments}}}'
    for (call,) in (calls.forced(text), calls.free(f"<tool_call>{text}</tool_call>")[1]):
        assert call.arguments == arguments


@pytest.mark.parametrize("arguments", ['{"a":NaN}', '{"a":"\\ud800"}', '{"deep":' + "[" * 2000 + "]" * 2000 + "}"])
def test_what_is_no_json_is_no_call(arguments: str) -> None:
    text = f'<tool_call>{{"name":"f","arguments":{arguments}}}</tool_call>'
    assert calls.free(text) == (text, [])


@pytest.mark.parametrize("tools", [True, False])
def test_a_template_that_knows_no_tools_is_given_the_calls_as_the_model_said_them(tools: bool) -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "content": "21 C", "tool_call_id": "c1"},
    ]
    served: Any = SimpleNamespace(name="any", language=SimpleNamespace(tools=tools))
    (generate,) = exchanges.Chat({"model": "any", "messages": messages}).generates(served)
    assert generate.messages is not None
    said = generate.messages[1]
    if tools:
        assert said["tool_calls"] == [called]
    else:
        assert said == {"role": "assistant", "content": '{"name":"weather","arguments":{"city":"Rome"}}'}


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_call_is_told_alike_in_a_stream_and_as_a_whole(is_whole: bool) -> None:
    """Where the tokens ran out behind a whole call, both say so."""
    reason: Any = "stop" if is_whole else "length"
    parts = [Tokens(0, f"<tool_call>{WHOLE}</tool_call>"), Done(0, reason, 7, 9, 0, 0, 0, 0, "fp", True)]

    async def speech() -> AsyncIterator[list[Any]]:
        yield parts

    async def streamed(pieces: AsyncGenerator[bytes]) -> list[Any]:
        return [document async for piece in pieces for _, document in events(piece)]

    class Said:
        ends = parts[1:]

        def __aiter__(self) -> Any:
            return speech()

    head, said = Head("id", 0, "any"), cast(Speech, Said())
    chunks = asyncio.run(streamed(endpoints._chat_free(said, ChatChunks(head), 1)))
    assert chunks[-1]["choices"][0]["finish_reason"] == ("tool_calls" if is_whole else "length")
    told = asyncio.run(streamed(endpoints._response_free(said, Events(head, {}))))
    status = "completed" if is_whole else "incomplete"
    assert told[-1]["type"] == f"response.{status}"
    assert [item["status"] for item in told[-1]["response"]["output"]] == [status]

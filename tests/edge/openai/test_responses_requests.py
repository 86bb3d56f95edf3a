"""The body of a response: the text part of OpenAI's, and what a caller sends back in place of what we do not keep."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from inference.language.requests import Generate, Sampling
from strongroom.errors import FieldError, Invalid
from strongroom.openai import errors, exchanges, requests
from strongroom.openai.answers import Head, ToolCall
from strongroom.openai.events import output, response
from strongroom.openai.exchanges import told_by
from strongroom.openai.responses import ResponsesRequest
from tests.edge.openai import asked
from tests.edge.openai.asked import WEATHER

TOOL = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}


def body(given: Any = "hello", **changes: Any) -> dict[str, Any]:
    return {"model": "m", "input": given} | changes


def generate(document: Any) -> Generate:
    made = requests.read(ResponsesRequest, document).generate()
    assert Generate.from_json(made.to_json()) == made
    return made


def refused(document: Any) -> tuple[str | None, str, str]:
    error = asked.refused(ResponsesRequest, document)
    return error["param"], error["code"], error["message"]


def test_a_text_is_a_users_message_and_instructions_come_first() -> None:
    assert generate(body()).messages == ({"role": "user", "content": "hello"},)
    assert generate(body(instructions="be brief")).messages == (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    )


def test_items_are_turns_and_calls_belong_to_the_assistants() -> None:
    made = generate(
        body(
            [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
                {"role": "assistant", "type": "message", "content": "I look"},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "rain"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
                {"type": "function_call", "call_id": "c3", "name": "weather", "arguments": "{}"},
            ]
        )
    )
    calls = [
        {"id": id, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for id in ("c1", "c2", "c3")
    ]
    assert made.messages == (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "I look", "tool_calls": calls[:2]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        {"role": "tool", "content": "sun", "tool_call_id": "c2"},
        {"role": "assistant", "content": "", "tool_calls": calls[2:]},
    )


def test_what_we_answered_is_taken_back_as_the_sdk_dumps_it() -> None:
    from openai.types.responses import Response

    request = requests.read(ResponsesRequest, body())
    items = output("I look", [ToolCall.of("weather", "{}")], "completed")
    document = response(Head.of("resp", "m"), request.echo(), "completed", items)
    read = Response.model_validate_json(orjson.dumps(document))
    for dumped in ([item.model_dump() for item in read.output], document["output"]):
        messages = generate(body([{"role": "user", "content": "a"}, *dumped])).messages
        assert messages is not None
        assert messages[1]["content"] == "I look"
        assert messages[1]["tool_calls"][0]["function"]["name"] == "weather"


def test_sampling_tools_and_forms_reach_the_engine() -> None:
    form = {"type": "json_schema", "name": "answer", "schema": WEATHER, "strict": True}
    made = generate(body(max_output_tokens=5, temperature=0.5, top_p=0.9, text={"format": form}))
    assert made.sampling.constraint is not None
    assert orjson.loads(made.sampling.constraint.text) == WEATHER
    assert (made.sampling.max_tokens, made.sampling.temperature, made.sampling.top_p) == (5, 0.5, 0.9)
    forced = generate(body(tools=[TOOL], tool_choice={"type": "function", "name": "weather"}))
    assert forced.sampling.constraint is not None
    assert forced.sampling.constraint.kind == "tool"
    assert forced.tools[0]["function"]["name"] == "weather"
    assert generate(body(text={"format": {"type": "text"}})).sampling == Sampling()


def test_nothing_is_stored_and_only_who_asks_for_it_is_refused() -> None:
    assert generate(body(store=False)) == generate(body())
    assert refused(body(store=True))[:2] == ("store", "unsupported_parameter")
    for name in ("previous_response_id", "conversation", "background", "include", "reasoning", "prompt"):
        assert refused(body(**{name: "x"}))[:2] == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("document", "param", "said"),
    [
        (body([]), "input", "at least 1 entries"),
        (body(7), "input", "must be a list, is 7"),
        (body(["hello"]), "input[0]", "must be an object, is 'hello'"),
        (body([{"type": "reasoning", "summary": []}]), "input[0].type", "is 'reasoning'"),
        (body([{"type": "item_reference", "id": "msg_1"}]), "input[0].type", "is 'item_reference'"),
        (body([{"type": ["message"]}]), "input[0].type", "is a list"),
        (body([{"role": "alien", "content": "x"}]), "input[0].role", "is 'alien'"),
        (body([{"role": "user", "content": [{"type": "input_image"}]}]), "input[0].content[0].type", "images"),
        (body([{"role": "user", "content": "x", "contnet": "y"}]), "input[0].contnet", "did you mean 'content'"),
        (body([{"type": "function_call", "call_id": "a", "name": "b"}]), "input[0].arguments", "is missing"),
        (body([{"type": "function_call_output", "call_id": "a", "output": 1}]), "input[0].output", "must be a text"),
        (body(max_tokens=5), "max_tokens", "did you mean 'max_output_tokens'"),
        (body(max_output_tokens=0), "max_output_tokens", "at least 1"),
        (body(temperature=9), "temperature", "at most 2, is 9"),
        (body(text={"verbosity": "low"}), "text.verbosity", "is not supported"),
        (body(text={"format": {"type": "json_schema"}}), "text.format.name", "is missing"),
        (body(text={"format": {"type": "json_schema", "name": "a"}}), "text.format.schema", "is missing"),
        (body(text={"format": {"type": "json_object"}}, tools=[TOOL]), "text.format", "could never call one"),
        (body(tools=[{"type": "web_search"}]), "tools[0].name", "is missing"),
        (body(tools=[TOOL], tool_choice={"type": "function", "name": "time"}), "tool_choice", "names 'time'"),
        (
            body(stream=True, stream_options={"include_obfuscation": True}),
            "stream_options.include_obfuscation",
            "padded",
        ),
        ({"model": "m"}, "input", "is missing"),
    ],
)
def test_what_is_not_of_the_part_that_is_built_is_refused_by_name(document: Any, param: str, said: str) -> None:
    found, _, message = refused(document)
    assert found == param
    assert said in message


@pytest.mark.parametrize("kind", ["text", "json_object"])
@pytest.mark.parametrize("given", [{"schema": WEATHER}, {"name": "answer"}, {"description": "an answer"}])
def test_a_schema_that_would_be_ignored_is_refused(kind: str, given: dict[str, Any]) -> None:
    (name,) = given
    param, code, message = refused(body(text={"format": {"type": kind, **given}}))
    assert (param, code) == (f"text.format.{name}", "invalid_value")
    assert f"may not be given with the type '{kind}'" in message


def test_a_kind_that_is_deep_is_a_kind_that_is_not_known() -> None:
    kind: Any = "message"
    for _ in range(1000):
        kind = [kind]
    param, code, message = refused(body([{"type": kind}]))
    assert (param, code) == ("input[0].type", "unsupported_value")
    assert "is a list" in message


@pytest.mark.parametrize(
    ("pointer", "param"),
    [("/messages", "input"), ("/response_format/json_schema/schema", "text.format.schema"), ("/tools", "tools")],
)
def test_what_the_engine_refuses_is_told_at_the_parameter_that_was_given(pointer: str, param: str) -> None:
    with pytest.raises(Invalid) as caught, told_by(exchanges.Responses(body())):
        raise Invalid.all([FieldError(pointer, "context_length", "need 9000 tokens", "the context has 8192")])
    assert errors.document(caught.value)["error"]["param"] == param

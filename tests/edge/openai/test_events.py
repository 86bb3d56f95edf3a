"""The answers of /v1/responses: each event judged by the SDK's class, the whole stream put together by its client."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import responses as sdk
from pydantic import BaseModel

from strongroom.errors import LimitReached, StrongroomError
from strongroom.openai import requests
from strongroom.openai.answers import Head, ToolCall, Usage
from strongroom.openai.events import Events, output, response
from strongroom.openai.responses import ResponsesRequest
from tests.depth import examples
from tests.edge.openai.asked import WEATHER
from tests.edge.openai.oracle import EVENTS, answering, events, fits

CLASSES: dict[str, type[BaseModel]] = {
    "response.created": sdk.ResponseCreatedEvent,
    "response.in_progress": sdk.ResponseInProgressEvent,
    "response.output_item.added": sdk.ResponseOutputItemAddedEvent,
    "response.content_part.added": sdk.ResponseContentPartAddedEvent,
    "response.output_text.delta": sdk.ResponseTextDeltaEvent,
    "response.output_text.done": sdk.ResponseTextDoneEvent,
    "response.content_part.done": sdk.ResponseContentPartDoneEvent,
    "response.output_item.done": sdk.ResponseOutputItemDoneEvent,
    "response.function_call_arguments.delta": sdk.ResponseFunctionCallArgumentsDeltaEvent,
    "response.function_call_arguments.done": sdk.ResponseFunctionCallArgumentsDoneEvent,
    "response.completed": sdk.ResponseCompletedEvent,
    "response.incomplete": sdk.ResponseIncompleteEvent,
    "response.failed": sdk.ResponseFailedEvent,
}
HEAD = Head("resp_1", 1_700_000_000, "smol")
USAGE = Usage(7, 5, 3)
REQUEST = {
    "model": "smol",
    "input": "hello",
    "instructions": "be brief",
    "max_output_tokens": 9,
    "metadata": {"a": "b"},
    "temperature": 0.5,
    "tools": [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}],
    "tool_choice": {"type": "function", "name": "weather"},
    "text": {"format": {"type": "json_schema", "name": "answer", "schema": WEATHER}},
}


def echo(**changes: Any) -> dict[str, Any]:
    return requests.read(ResponsesRequest, REQUEST | changes).echo()


def judged(stream: bytes) -> list[Any]:
    """The events, each of its class, numbered without a gap."""
    read = []
    for number, (name, document) in enumerate(events(stream)):
        assert name == document["type"]
        read.append(fits(CLASSES[document["type"]], document))
        assert document["sequence_number"] == number
    return read


def test_a_whole_response_is_the_sdks_and_repeats_the_request() -> None:
    call = ToolCall.of("weather", '{"city":"Ulm"}')
    document = response(HEAD, echo(), "completed", output("hello", [call], "completed"), USAGE)
    found: sdk.Response = fits(sdk.Response, document)
    assert found.output_text == "hello"
    assert [item.type for item in found.output] == ["message", "function_call"]
    assert (found.instructions, found.max_output_tokens, found.temperature, found.top_p) == ("be brief", 9, 0.5, 1.0)
    assert (found.status, found.error, found.incomplete_details) == ("completed", None, None)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.total_tokens) == (7, 5, 12)
    assert found.usage.input_tokens_details.cached_tokens == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": [], "tool_choice": "none"},
        {"tool_choice": "required"},
        {"text": {"format": {"type": "text"}}, "tool_choice": "auto"},
        {"text": {"format": {"type": "json_object"}}, "tool_choice": "none"},
        {"metadata": None, "instructions": None, "text": None, "tool_choice": None},
    ],
)
def test_each_way_to_ask_is_repeated_as_the_sdk_reads_it(changes: dict[str, Any]) -> None:
    fits(sdk.Response, response(HEAD, echo(**changes), "in_progress", []))


def test_what_ran_out_of_tokens_is_incomplete_and_what_failed_says_why() -> None:
    short: sdk.Response = fits(
        sdk.Response, response(HEAD, echo(), "incomplete", output("he", [], "incomplete"), USAGE)
    )
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"
    for error, code in (
        (StrongroomError("lost", code="engine_lost"), "server_error"),
        (LimitReached("busy", code="queue_full"), "rate_limit_exceeded"),
        (StrongroomError("wrong", code="invalid_field"), "invalid_prompt"),
    ):
        failed: sdk.Response = fits(sdk.Response, response(HEAD, echo(), "failed", [], None, error))
        assert failed.error is not None
        assert (failed.error.code, failed.error.message) == (code, error.detail)


def test_nothing_said_is_an_empty_message() -> None:
    [item] = output("", [], "completed")
    assert item["content"][0]["text"] == ""
    assert [item["type"] for item in output("", [ToolCall.of("now", "{}")], "completed")] == ["function_call"]


@settings(max_examples=examples(30))
@given(pieces=st.lists(st.text(), max_size=5))
def test_a_text_is_streamed_in_the_order_that_openai_streams_it(pieces: list[str]) -> None:
    made = Events(HEAD, echo())
    stream = made.begin() + made.begin_message() + b"".join(made.text(piece) for piece in pieces)
    read = judged(stream + made.end_message() + made.completed(USAGE))
    assert [event.type.removeprefix("response.") for event in read] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(pieces),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.delta for event in read if event.type == "response.output_text.delta"] == pieces
    assert read[-4].text == read[-1].response.output_text == "".join(pieces)
    assert {event.item_id for event in read if hasattr(event, "item_id")} == {read[-2].item.id}


def test_the_sdk_puts_a_text_and_a_call_together() -> None:
    made = Events(HEAD, echo())
    stream = b"".join(
        [
            made.begin(),
            made.begin_message(),
            made.text("I "),
            made.text("look"),
            made.end_message(),
            made.begin_call(ToolCall("call_1", "weather", "")),
            made.arguments('{"city":'),
            made.arguments('"Ulm"}'),
            made.end_call(),
            made.completed(USAGE),
        ]
    )
    read = judged(stream)
    assert {event.type for event in read} == CLASSES.keys() - {"response.incomplete", "response.failed"}
    assert [event.output_index for event in read if event.type == "response.output_item.added"] == [0, 1]
    with answering(stream, EVENTS).client().responses.stream(model="smol", input="hello") as received:
        found = received.get_final_response()
    assert found.output_text == "I look"
    message, call = found.output
    assert message.type == "message"
    assert call.type == "function_call"
    assert (call.call_id, call.name, call.arguments) == ("call_1", "weather", '{"city":"Ulm"}')


def test_a_stream_may_end_incomplete_or_failed() -> None:
    short = Events(HEAD, echo())
    read = judged(
        short.begin()
        + short.begin_message()
        + short.text("he")
        + short.end_message("incomplete")
        + short.incomplete(USAGE)
    )
    assert read[-1].response.status == "incomplete"
    assert read[-1].response.output[0].status == "incomplete"
    broken = Events(HEAD, echo())
    read = judged(
        broken.begin() + broken.begin_message() + broken.text("he") + broken.failed(StrongroomError("lost"), USAGE)
    )
    assert read[-1].response.error.message == "lost"
    assert read[-1].response.output == []


def test_a_call_ends_only_where_one_is_open() -> None:
    with pytest.raises(ValueError, match="no call is open"):
        Events(HEAD, echo()).end_call()

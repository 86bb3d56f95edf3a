"""Streams of chunks: each one judged by the SDK's class, and the whole put together by its own client."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from inference.language.requests import Logprob
from strongroom.openai.answers import Head, Usage
from strongroom.openai.chunks import DONE, ChatChunks, CompletionChunks
from tests.edge.openai.oracle import EVENTS, answering, events, fits

HEAD = Head("chatcmpl-1", 1_700_000_000, 'a "model"', "fp_1")
USAGE = Usage(7, 5, 3)
ENTRY = Logprob(1, b" hi", -0.5, ((1, b" hi", -0.5),))


def one(chunk: bytes) -> ChatCompletionChunk:
    [(name, document)] = events(chunk)
    assert name is None
    found: ChatCompletionChunk = fits(ChatCompletionChunk, document)
    assert (found.id, found.model, found.created, found.system_fingerprint) == (
        "chatcmpl-1",
        'a "model"',
        1700000000,
        "fp_1",
    )
    return found


@given(text=st.text(), index=st.integers(0, 2))
def test_any_piece_of_text_arrives_as_it_was(text: str, index: int) -> None:
    for is_padded in (False, True):
        for with_usage in (False, True):
            chunks = ChatChunks(HEAD, 3, with_usage=with_usage, is_padded=is_padded)
            found = one(chunks.text(index, text))
            assert (found.choices[0].index, found.choices[0].delta.content) == (index, text)
            assert found.choices[0].finish_reason is None


@given(text=st.text(max_size=200))
def test_padded_chunks_have_sizes_of_steps_only(text: str) -> None:
    chunks = ChatChunks(HEAD, is_padded=True)
    for chunk in (chunks.text(0, text), chunks.last(0, "stop"), chunks.arguments(0, 0, text)):
        assert len(chunk) % 64 == 0
        assert one(chunk).obfuscation is not None


def test_every_kind_of_chunk_is_the_sdks() -> None:
    chunks = ChatChunks(HEAD, with_usage=True)
    first = one(chunks.first(0)).choices[0]
    assert (first.delta.role, first.delta.content) == ("assistant", "")
    told = one(chunks.text_with(0, " hi", [ENTRY])).choices[0]
    assert told.delta.content == " hi"
    assert told.logprobs is not None
    assert told.logprobs.content is not None
    assert told.logprobs.content[0].bytes == [32, 104, 105]
    last = one(chunks.last(0, "length"))
    assert (last.choices[0].finish_reason, last.choices[0].delta.content, last.usage) == ("length", None, None)
    end = one(chunks.usage(USAGE))
    assert end.choices == []
    assert end.usage is not None
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.total_tokens) == (7, 5, 12)


def test_usage_is_null_in_all_chunks_but_the_last_where_it_was_asked_for() -> None:
    assert b'"usage":null' in ChatChunks(HEAD, with_usage=True).text(0, "x")
    assert b"usage" not in ChatChunks(HEAD).text(0, "x")
    assert b"usage" not in ChatChunks(HEAD).last(0, "stop")


def test_the_sdk_puts_texts_calls_and_usage_together() -> None:
    chunks = ChatChunks(HEAD, 2, with_usage=True)
    stream = b"".join(
        [
            chunks.first(0),
            chunks.first(1),
            chunks.text(0, "he"),
            chunks.call(1, 0, "call_1", "weather"),
            chunks.text(0, "llo"),
            chunks.arguments(1, 0, '{"city":'),
            chunks.arguments(1, 0, '"Ulm"}'),
            chunks.call(1, 1, "call_2", "now"),
            chunks.arguments(1, 1, "{}"),
            chunks.last(1, "tool_calls"),
            chunks.last(0, "stop"),
            chunks.usage(USAGE),
            DONE,
        ]
    )
    for _, document in events(stream):
        fits(ChatCompletionChunk, document)
    with answering(stream, EVENTS).client().chat.completions.stream(model="m", messages=[]) as read:
        found = read.get_final_completion()
    text, calls = (choice.message for choice in found.choices)
    assert text.content == "hello"
    assert [(call.id, call.function.name, call.function.arguments) for call in calls.tool_calls or ()] == [
        ("call_1", "weather", '{"city":"Ulm"}'),
        ("call_2", "now", "{}"),
    ]
    assert [choice.finish_reason for choice in found.choices] == ["stop", "tool_calls"]
    assert found.usage is not None
    assert found.usage.total_tokens == 12


# --- legacy completions


def completion(chunk: bytes) -> Any:
    """The SDK's class for a chunk is the one of a whole completion, whose finish_reason is never null. OpenAI streams
    null until the last, as do we; so does no strict reading of it go through."""
    [(_, document)] = events(chunk)
    for choice in document["choices"]:
        assert choice["finish_reason"] in (None, "stop", "length")
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    return fits(Completion, document)


@given(text=st.text(), is_padded=st.booleans())
def test_any_piece_of_a_completion_arrives_as_it_was(text: str, is_padded: bool) -> None:
    chunks = CompletionChunks(HEAD, 2)
    assert completion(chunks.text(1, text)).choices[0].text == text
    padded = CompletionChunks(HEAD, 2, is_padded=is_padded).text(1, text)
    assert orjson.loads(padded.removeprefix(b"data: "))["choices"][0]["text"] == text


def test_every_kind_of_a_completions_chunk_is_the_sdks() -> None:
    chunks = CompletionChunks(HEAD, with_usage=True)
    assert completion(chunks.last(0, "length")).choices[0].finish_reason == "length"
    told = completion(chunks.text_with(0, " hi", [ENTRY], 4)).choices[0].logprobs
    assert (told.tokens, told.token_logprobs, told.text_offset) == ([" hi"], [-0.5], [4])
    assert completion(chunks.usage(USAGE)).usage.total_tokens == 12


def test_the_sdk_reads_a_stream_of_completions_to_its_end() -> None:
    chunks = CompletionChunks(HEAD, with_usage=True)
    stream = chunks.text(0, "a") + chunks.text(0, "b") + chunks.last(0, "stop") + chunks.usage(USAGE) + DONE
    read = list(answering(stream, EVENTS).client().completions.create(model="m", prompt="x", stream=True))
    assert "".join(chunk.choices[0].text for chunk in read[:-1]) == "ab"
    assert [chunk.choices[0].finish_reason for chunk in read[:-1]] == [None, None, "stop"]
    assert read[-1].usage is not None
    assert read[-1].usage.total_tokens == 12


@pytest.mark.parametrize("kind", [ChatChunks, CompletionChunks])
def test_a_choice_that_was_not_asked_for_has_no_chunk(kind: type[ChatChunks]) -> None:
    with pytest.raises(IndexError):
        kind(HEAD, 2).text(2, "x")

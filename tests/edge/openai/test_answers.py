"""Whole answers, each judged by the SDK's class for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from openai.pagination import SyncPage
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion

from inference.language.requests import Done, Logprob
from strongroom.openai import answers
from strongroom.openai.answers import Choice, Head, ToolCall, Usage
from tests.edge.openai.oracle import answering, fits

HEAD = Head("chatcmpl-1", 1_700_000_000, "smol", "fp_1")
USAGE = Usage(7, 5, 3)
ENTRIES = (
    Logprob(1, b" hi", -0.5, ((1, b" hi", -0.5), (2, b"\xe2\x82", -2.0))),
    Logprob(2, b"\xe2\x82", -math.inf, ((2, b"\xe2\x82", -1.0),)),
)


def done(index: int, prompt: int, completion: int, cached: int) -> Done:
    return Done(index, "stop", prompt, completion, cached, 0, 0, 0, "fp_1")


def test_a_chat_completion_is_the_sdks() -> None:
    choices = [Choice(0, "hello", "stop"), Choice(1, "", "length")]
    found: ChatCompletion = fits(ChatCompletion, answers.chat_completion(HEAD, choices, USAGE))
    assert [choice.message.content for choice in found.choices] == ["hello", ""]
    assert [choice.finish_reason for choice in found.choices] == ["stop", "length"]
    assert found.usage is not None
    assert found.usage.total_tokens == 12
    assert (found.system_fingerprint, found.model, found.created) == ("fp_1", "smol", 1_700_000_000)


def test_calls_of_tools_stand_in_the_message_without_a_text() -> None:
    call = ToolCall.of("weather", '{"city":"Ulm"}')
    choices = [
        Choice(0, "", "tool_calls", tool_calls=[call]),
        Choice(1, "I look", "tool_calls", tool_calls=[call, call]),
    ]
    found: ChatCompletion = fits(ChatCompletion, answers.chat_completion(HEAD, choices, USAGE))
    first, second = (choice.message for choice in found.choices)
    assert (first.content, second.content) == (None, "I look")
    assert first.tool_calls is not None
    assert first.tool_calls[0].type == "function"
    assert first.tool_calls[0].function.arguments == '{"city":"Ulm"}'
    assert first.tool_calls[0].id.startswith("call_")
    assert len(second.tool_calls or ()) == 2


def test_log_probabilities_have_the_bytes_of_tokens_that_are_no_text() -> None:
    document = answers.chat_completion(HEAD, [Choice(0, " hi", "stop", ENTRIES)], USAGE)
    found: ChatCompletion = fits(ChatCompletion, document)
    assert found.choices[0].logprobs is not None
    assert found.choices[0].logprobs.content is not None
    first, second = found.choices[0].logprobs.content
    assert (first.token, first.bytes, first.logprob) == (" hi", [32, 104, 105], -0.5)
    assert [(top.bytes, top.logprob) for top in first.top_logprobs] == [([32, 104, 105], -0.5), ([0xE2, 0x82], -2.0)]
    assert (second.token, second.bytes, second.logprob) == ("\ufffd", [0xE2, 0x82], -9999.0)


def test_a_completion_is_the_sdks() -> None:
    found: Completion = fits(Completion, answers.completion(HEAD, [Choice(0, " hi", "length", ENTRIES)], USAGE))
    assert found.object == "text_completion"
    assert found.choices[0].text == " hi"
    told = found.choices[0].logprobs
    assert told is not None
    assert told.tokens == [" hi", "bytes:\\xe2\\x82"]
    assert told.token_logprobs == [-0.5, -9999.0]
    assert told.text_offset == [0, 3]
    assert told.top_logprobs == [{" hi": -0.5, "bytes:\\xe2\\x82": -2.0}, {"bytes:\\xe2\\x82": -1.0}]


def test_usage_is_the_sum_of_all_ends() -> None:
    assert Usage.of([done(0, 7, 2, 3), done(1, 0, 4, 0)]) == Usage(7, 6, 3)
    assert Usage.of([]) == Usage()


@pytest.mark.parametrize("rows", [1, 3])
def test_embeddings_are_the_sdks_as_numbers_and_as_base64(rows: int) -> None:
    vectors = np.linspace(-1, 1, rows * 8, dtype=np.float32).reshape(rows, 8)
    written = answers.embeddings("smol", vectors, "float", 9)
    found: CreateEmbeddingResponse = fits(CreateEmbeddingResponse, written)
    np.testing.assert_array_equal(np.array([row.embedding for row in found.data], dtype=np.float32), vectors)
    assert [row.index for row in found.data] == list(range(rows))
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (9, 9)


def test_the_sdk_asks_for_base64_by_itself_and_decodes_ours() -> None:
    vectors = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    wire = answering(answers.embeddings("smol", vectors, "base64", 9))
    found = wire.client().embeddings.create(model="smol", input=["a", "b"])
    assert orjson.loads(wire.asked[0].content)["encoding_format"] == "base64"
    np.testing.assert_array_equal(np.array([row.embedding for row in found.data], dtype=np.float32), vectors)


def test_vectors_of_another_layout_are_written_as_float32() -> None:
    vectors: Any = np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3))
    found = fits(CreateEmbeddingResponse, answers.embeddings("smol", vectors, "float", 1))
    assert [row.embedding for row in found.data] == [[0, 1, 2], [3, 4, 5]]


def test_models_are_the_sdks_one_and_many() -> None:
    one = answers.model("smol", 1_700_000_000, "ten_1")
    fits(Model, one)
    fits(SyncPage[Model], answers.models([one, one]))
    listed = answering(answers.models([one])).client().models.list()
    assert [model.id for model in listed] == ["smol"]


def test_ids_are_fresh_and_have_openais_prefixes() -> None:
    assert Head.of("chatcmpl", "m").id.startswith("chatcmpl-0")
    assert Head.of("cmpl", "m").id.startswith("cmpl-0")
    assert Head.of("resp", "m").id.startswith("resp_0")
    assert len({answers.fresh("call") for _ in range(1000)}) == 1000

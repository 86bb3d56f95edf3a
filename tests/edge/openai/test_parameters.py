"""No parameter of the SDK is met by surprise: each is honoured, accepted without effect, or refused by name."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from strongroom.openai import parameters
from strongroom.openai.chat import ChatRequest
from strongroom.openai.completions import CompletionsRequest
from strongroom.openai.embeddings import EmbeddingsRequest
from strongroom.openai.requests import Document
from strongroom.openai.responses import ResponsesRequest
from tests.edge.openai.asked import chat, refused

SMALLEST: dict[type[Document], dict[str, Any]] = {
    ChatRequest: chat(),
    CompletionsRequest: {"model": "m", "prompt": "a"},
    EmbeddingsRequest: {"model": "m", "input": "a"},
    ResponsesRequest: {"model": "m", "input": "a"},
}
SDK: dict[type[Document], Any] = {
    ChatRequest: chat_create_params.CompletionCreateParamsStreaming,
    CompletionsRequest: completion_create_params.CompletionCreateParamsStreaming,
    EmbeddingsRequest: embedding_create_params.EmbeddingCreateParams,
    ResponsesRequest: response_create_params.ResponseCreateParamsStreaming,
}
REFUSED = [(model, name, why) for model in SMALLEST for name, why in model.refused.items()]


@pytest.mark.parametrize("model", SMALLEST)
def test_the_sdk_has_no_parameter_that_we_do_not_know(model: type[Document]) -> None:
    theirs = get_type_hints(SDK[model], include_extras=False).keys()
    assert theirs - model.names - model.refused.keys() == set()
    assert model.names & model.refused.keys() == set()


@pytest.mark.parametrize(("model", "name", "why"), REFUSED)
def test_each_parameter_of_the_table_is_refused_with_its_reason(
    model: type[Document], name: str, why: parameters.Refused
) -> None:
    error = refused(model, SMALLEST[model] | {name: {"anything": True}})
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)
    assert error["message"] == f"{name} is not supported: {why.why}"


@pytest.mark.parametrize(("model", "name", "why"), REFUSED)
def test_a_refused_parameter_that_asks_for_nothing_is_let_through(
    model: type[Document], name: str, why: parameters.Refused
) -> None:
    harmless: tuple[object, ...] = (None, *why.harmless)
    for value in harmless:
        assert model.model_validate(SMALLEST[model] | {name: value}) == model.model_validate(SMALLEST[model])


def test_nothing_that_looks_like_false_is_taken_for_it() -> None:
    truths: list[Any] = [True, 0, "", [], "false"]
    for value in truths:
        assert refused(ChatRequest, chat(store=value))["code"] == "unsupported_parameter"


def test_an_unknown_parameter_is_refused_with_the_nearest_name() -> None:
    error = refused(ChatRequest, chat(temprature=1))
    assert (error["code"], error["param"]) == ("unknown_parameter", "temprature")
    assert error["message"] == "temprature is not a known parameter, did you mean 'temperature'?"
    assert "known are: " in refused(ChatRequest, chat(zzzzzz=1))["message"]

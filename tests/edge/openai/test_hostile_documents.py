"""Whatever JSON comes in, out comes a request or a refusal of ours, and a long one costs no more than a short one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.language.requests import Generate
from strongroom.errors import StrongroomError
from strongroom.openai import errors, requests
from strongroom.openai.chat import ChatRequest
from strongroom.openai.completions import CompletionsRequest
from strongroom.openai.embeddings import EmbeddingsRequest
from strongroom.openai.requests import Document
from strongroom.openai.responses import ResponsesRequest
from tests.depth import examples
from tests.edge.openai.asked import chat, refused, saying, tool

MODELS: list[type[Document]] = [ChatRequest, CompletionsRequest, EmbeddingsRequest, ResponsesRequest]
NAMES = sorted(set().union(*(model.names | model.refused.keys() for model in MODELS)))
MEANT = [
    "role",
    "content",
    "type",
    "text",
    "function",
    "name",
    "arguments",
    "user",
    "assistant",
    "tool",
    "schema",
    "$ref",
]
OTHERS = ["input_text", "function_call", "function_call_output", "json_schema", "#", "auto", "required", "id", "format"]
WORDS = st.sampled_from(MEANT + OTHERS)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
) | (st.text(max_size=8) | WORDS)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | WORDS, inner, max_size=4),
    max_leaves=20,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "x"]), "content": ANYTHING | st.text()},
        optional={"name": ANYTHING, "tool_calls": ANYTHING, "tool_call_id": st.text(), "type": ANYTHING},
    ),
    max_size=3,
)
DOCUMENTS = st.builds(
    lambda usual, others: usual | others,
    st.fixed_dictionaries(
        {"model": st.just("m")},
        optional={"messages": MESSAGES, "input": MESSAGES | ANYTHING, "prompt": ANYTHING},
    ),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4),
)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=examples(50))
@given(document=ANYTHING | DOCUMENTS)
def test_any_json_is_a_request_or_a_refusal_of_ours(model: type[Document], document: Any) -> None:
    found = outcome(model, orjson.loads(orjson.dumps(document)))
    if isinstance(found, StrongroomError):
        told = errors.document(found)["error"]
        assert told.keys() == {"message", "type", "param", "code"}
        assert len(orjson.dumps(told)) < 4000
        assert 1 <= len(found.errors) <= 20
        return
    made = found.generate() if hasattr(found, "generate") else []
    for one in made if isinstance(made, list) else [made]:
        assert Generate.from_json(one.to_json()) == one


def outcome(model: type[Document], document: Any) -> Any:
    try:
        return requests.read(model, document)
    except StrongroomError as error:
        return error


@settings(max_examples=examples(50))
@given(
    text=st.text(),
    temperature=st.floats(0, 2),
    n=st.integers(1, 16),
    stop=st.lists(st.text(min_size=1, max_size=60), max_size=16),
)
def test_what_is_within_its_bounds_reaches_the_engine_unchanged(
    text: str, temperature: float, n: int, stop: list[str]
) -> None:
    made = requests.read(ChatRequest, saying({"role": "user", "content": text}) | {"n": n, "stop": stop})
    made = made.model_copy(update={"temperature": temperature})
    generate = made.generate()
    assert generate.messages == ({"role": "user", "content": text},)
    assert (generate.n, generate.sampling.stop, generate.sampling.temperature) == (n, tuple(stop), temperature)


@pytest.mark.parametrize("document", [None, [], "x", 7, True, [chat()]])
def test_what_is_no_object_is_refused(document: Any) -> None:
    for model in MODELS:
        error = refused(model, document)
        assert error["param"] is None
        assert error["message"].startswith("the body must be a JSON object, is ")


GARBAGE = {f"garbage {number}": number for number in range(100_000)}


@pytest.mark.parametrize(
    "document",
    [
        chat(**GARBAGE),
        {"messages": GARBAGE},
        saying({"role": "user", "content": "x"} | GARBAGE),
        saying(*[{"role": "user"}] * 100_000),
        saying(*[{}] * 2000),
        saying({"role": "user", "content": [{"type": "x"}] * 100_000}),
        saying({"role": "user", "content": [{"type": "text", "text": "x"} | GARBAGE]}),
        chat(tools=[{}] * 100_000),
        chat(tools=[tool() | GARBAGE]),
        chat(stop=["x"] * 100_000),
        chat(logit_bias=GARBAGE),
        chat(metadata=GARBAGE),
        chat(stream_options=GARBAGE),
        chat(response_format=GARBAGE),
        chat(**{"x" * 1_000_000: 1}),
        chat(temperature="x" * 1_000_000),
        saying({"role": "x" * 1_000_000}),
        chat(**dict.fromkeys(NAMES, GARBAGE)),
    ],
)
def test_a_flood_is_refused_in_few_words(document: Any) -> None:
    error = refused(ChatRequest, document)
    assert len(error["message"]) < 2000

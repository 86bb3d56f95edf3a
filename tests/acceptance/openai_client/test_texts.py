"""Completions, responses, embeddings and the list of models, by OpenAI's unmodified client."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from openai import NotFoundError, OpenAI

from tests.acceptance.openai_client.conftest import deployed
from tests.journeys import Journey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_completions_go_on_from_one_prompt_or_many(client: OpenAI) -> None:
    many = client.completions.create(
        model="smollm2", prompt=["Once upon a time", "The sea is"], max_tokens=8, temperature=0, n=1
    )
    assert [choice.index for choice in many.choices] == [0, 1]
    streamed = client.completions.create(
        model="smollm2", prompt=["Once upon a time", "The sea is"], max_tokens=8, temperature=0, stream=True
    )
    texts = {0: "", 1: ""}
    for chunk in streamed:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert all(texts.values())
    assert all(choice.text for choice in many.choices)


def test_a_response_is_answered_whole_and_as_events(client: OpenAI) -> None:
    asked: Any = {"model": "smollm2", "input": "Say hello to Ada.", "temperature": 0, "max_output_tokens": 16}
    whole = client.responses.create(**asked)
    assert whole.output_text
    assert whole.usage is not None
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response() if kinds[-1] == "response.completed" else None
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert final is None or final.output_text == whole.output_text


def test_embeddings_tell_what_is_alike(client: OpenAI) -> None:
    texts = ["A cat sits on the mat.", "On the rug lies a kitten.", "The stock market fell on Monday."]
    floats = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    vectors = np.array([row.embedding for row in floats.data])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > 0.2 > far
    as_base64 = client.embeddings.create(model="minilm", input=texts)  # the client's own default, decoded by it
    np.testing.assert_allclose(np.array([row.embedding for row in as_base64.data]), vectors, atol=1e-6)
    assert floats.usage.prompt_tokens > 20


def test_the_models_are_those_that_take_words(client: OpenAI, house: Journey) -> None:
    found = client.models.list()
    assert {model.id for model in found.data} == {"smollm2", "minilm"}
    assert client.models.retrieve("smollm2").owned_by == "alpha"
    with pytest.raises(NotFoundError):
        client.models.retrieve("nothing")
    other = OpenAI(api_key=house.keys["beta"], base_url=f"{house.node.url}/v1", max_retries=0)
    assert other.models.list().data == []


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_deployments_policy_holds_for_vectors(house: Journey, client: OpenAI, form: Any) -> None:
    """Fewer decimals tell less about the model, whichever face is asked."""
    with deployed(house, "rounded", "minilm", policy={"decimals": 2}) as name:
        raw = client.embeddings.with_raw_response.create(model=name, input="Hello", encoding_format=form)
    vector = json.loads(raw.content)["data"][0]["embedding"]
    values = np.array(vector, "f4") if form == "float" else np.frombuffer(base64.b64decode(vector), "<f4")
    np.testing.assert_allclose(values * 100, np.round(values * 100), atol=1e-4)
    assert values.any()

"""Legacy completions and embeddings: the four shapes of a prompt, and what is asked of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from inference.language.requests import Generate, Sampling
from strongroom.openai import requests
from strongroom.openai.completions import CompletionsRequest
from strongroom.openai.embeddings import EmbeddingsRequest
from tests.edge.openai import asked


def completion(prompt: Any, **changes: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": prompt} | changes


def generate(document: dict[str, Any]) -> list[Generate]:
    return requests.read(CompletionsRequest, document).generate()


def inputs(given: Any, **changes: Any) -> tuple[Any, ...]:
    return requests.read(EmbeddingsRequest, {"model": "m", "input": given} | changes).input


SHAPES = [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1, 2], [3]], ((1, 2), (3,)))]


@pytest.mark.parametrize(("given", "read"), SHAPES)
def test_a_prompt_is_a_text_or_tokens_one_or_many(given: Any, read: tuple[Any, ...]) -> None:
    assert [one.prompt for one in generate(completion(given))] == list(read)
    assert inputs(given) == read


def test_each_prompt_is_asked_for_with_the_same_sampling() -> None:
    made = generate(completion(["a", "b"], n=2, echo=True, logprobs=5, max_tokens=7, temperature=0, stop="x"))
    sampling = Sampling(max_tokens=7, temperature=0, stop=("x",), logprobs=5)
    assert made == [Generate(prompt=text, sampling=sampling, n=2, echo=True) for text in ("a", "b")]
    assert [Generate.from_json(one.to_json()) for one in made] == made


def test_sixteen_tokens_are_written_where_nobody_says_a_number() -> None:
    assert generate(completion("a"))[0].sampling.max_tokens == 16
    assert generate(completion("a", max_tokens=50))[0].sampling.max_tokens == 50


@pytest.mark.parametrize(
    ("given", "at", "said"),
    [
        ([], "", "at least 1 entry, has 0"),
        (7, "", "a text, a list of texts or token ids, is 7"),
        ({"a": 1}, "", "is an object"),
        (["a", 1], "[1]", "as the other entries, is 1"),
        (["a", ["b"]], "[1]", "as the other entries, is a list"),
        ([[1], "a"], "[1]", "as the other entries, is 'a'"),
        ([[1], []], "[1]", "at least 1 token"),
        ([[1], [True]], "[1]", "only token ids"),
        ([1, "a"], "", "only token ids"),
        ([1, -1], "", "only token ids"),
        ([1, 2**31], "", "only token ids"),
        ([1.5], "[0]", "as the other entries, is 1.5"),
        ([None], "[0]", "is null"),
    ],
)
def test_another_shape_is_refused_where_it_is_wrong(given: Any, at: str, said: str) -> None:
    for model, name in ((CompletionsRequest, "prompt"), (EmbeddingsRequest, "input")):
        error = asked.refused(model, {"model": "m", name: given})
        assert error["param"] == name + at
        assert said in error["message"]


def test_the_choices_of_one_request_are_bounded_together() -> None:
    assert len(generate(completion(["a"] * 8, n=16))) == 8
    error = asked.refused(CompletionsRequest, completion(["a"] * 9, n=16))
    assert error["param"] == "n"
    assert "16 choices of 9 prompts, more than 128 in all" in error["message"]
    assert "at most 128 entries, has 129" in asked.refused(CompletionsRequest, completion(["a"] * 129))["message"]


def test_a_completion_has_at_most_five_log_probabilities() -> None:
    assert generate(completion("a", logprobs=0))[0].sampling.logprobs == 0
    assert "at most 5, is 6" in asked.refused(CompletionsRequest, completion("a", logprobs=6))["message"]
    assert asked.refused(CompletionsRequest, completion("a", logprobs=True))["code"] == "invalid_type"


def test_embeddings_say_how_they_are_to_be_written() -> None:
    found = requests.read(
        EmbeddingsRequest,
        {"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 64, "user": "u"},
    )
    assert (found.encoding_format, found.dimensions) == ("base64", 64)
    assert requests.read(EmbeddingsRequest, {"model": "m", "input": "a"}).encoding_format == "float"


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"input": ["a"] * 2049}, "input", "at most 2048 entries, has 2049"),
        ({"input": ["a", ""]}, "input[1]", "must not be an empty text"),
        ({"input": ""}, "input[0]", "must not be an empty text"),
        ({"encoding_format": "hex"}, "encoding_format", "'float' or 'base64', is 'hex'"),
        ({"dimensions": 0}, "dimensions", "at least 1"),
        ({"temperature": 1}, "temperature", "not a known parameter"),
    ],
)
def test_what_no_embedding_can_be_made_of_is_refused(changes: dict[str, Any], param: str, said: str) -> None:
    error = asked.refused(EmbeddingsRequest, {"model": "m", "input": "a"} | changes)
    assert error["param"] == param
    assert said in error["message"]


def test_a_text_that_looks_like_base64_is_a_text() -> None:
    assert inputs("SGVsbG8=") == ("SGVsbG8=",)
    assert inputs("%%%") == ("%%%",)

"""An imported model's card on a page: what is known of it is said in words, whatever the sandboxed process claims."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.console import cards
from tests.depth import examples

CARD = {
    "architecture": "llama",
    "name": "SmolLM2",
    "license": "apache-2.0",
    "parameters": 134_515_008,
    "type": "Q4_0",
    "context_length": 8192,
    "vocabulary": 49_152,
    "tokenizer": "smollm",
    "chat_template": True,
    "tools": False,
    "report": ["GGUF version 3", "the chat template renders a first message"],
}
ENCODER = {"kind": "text_encoder", "width": 384, "max_tokens": 256, "pooling": "mean", "pad_token": 0}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
claims = st.dictionaries(st.sampled_from([*(key for key, _, _ in cards.FACTS), "report"]), anything)


def test_a_language_models_card_is_said_in_words() -> None:
    assert dict(cards.facts(CARD)) == {
        "Name": "SmolLM2",
        "Architecture": "llama",
        "Type": "Q4_0",
        "Context length": "8,192 tokens",
        "Vocabulary": "49,152 tokens",
        "Tokenizer": "smollm",
        "Chat template": "yes",
        "Tools": "no",
        "Licence": "apache-2.0",
    }
    assert cards.report(CARD) == CARD["report"]


def test_a_text_encoders_card_says_its_vector_and_its_longest_text() -> None:
    said = dict(cards.facts(ENCODER))
    assert said == {"Vector": "384 numbers", "Longest text": "256 tokens", "Pooling": "mean"}


def test_a_model_of_arrays_has_nothing_to_say() -> None:
    assert cards.facts(None) == []
    assert cards.report(None) == []


def test_what_is_not_known_and_what_has_no_value_is_left_out() -> None:
    assert cards.facts({"license": None, "name": "", "surprise": "x", "context_length": "long", "tools": [1]}) == []


def test_long_claims_are_cut() -> None:
    card = {"name": "x" * 5000, "report": ["y" * 5000] * 5000}
    assert len(cards.facts(card)[0][1]) == cards.CHARACTERS
    assert [len(line) for line in cards.report(card)] == [cards.CHARACTERS] * cards.LINES


@settings(max_examples=examples(200))
@given(claims)
def test_no_claim_breaks_a_page(card: dict[str, Any]) -> None:
    assert all(type(what) is str and type(said) is str and said for what, said in cards.facts(card))
    assert all(type(line) is str for line in cards.report(card))


def version(task: str, format: str = "onnx", card: dict[str, Any] | None = None) -> Any:
    return SimpleNamespace(format=format, card=card, model=SimpleNamespace(task=task))


@pytest.mark.parametrize(
    ("given", "takes"),
    [
        (None, "arrays"),
        (version("classification"), "arrays"),
        (version("embedding"), "arrays"),
        (version("embedding", card={}), "arrays"),
        (version("embedding", card=ENCODER), "texts"),
        (version("embedding", card={"tokenizer": "wordpiece"}), "texts"),
        (version("classification", card=ENCODER), "arrays"),
        (version("generation", "gguf", CARD), "words"),
        (version("generation", "lora", CARD), "words"),
    ],
)
def test_format_task_and_card_decide_what_a_version_takes(given: Any, takes: str) -> None:
    assert cards.takes(given) == takes

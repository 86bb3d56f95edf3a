"""Of a tokenizer.json only BERT's own parts come through, written anew; all else is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.training.importing.encoders import WORDS, tokenizer
from training.errors import ImportRefused
from training.importing import wordpiece

MODEL_WORDS = 20


def rewritten(document: Any) -> dict[str, Any]:
    return dict(json.loads(wordpiece.rewritten(json.dumps(document).encode(), MODEL_WORDS).content))


def test_what_is_cut_off_and_filled_up_is_left_to_the_server() -> None:
    served = rewritten(tokenizer())
    assert (served["truncation"], served["padding"]) == (None, None)
    library = Tokenizer.from_str(json.dumps(served))
    assert library.encode("hello a strongroom banks hello hello hello").tokens == [
        *("[CLS]", "hello", "a", "strong", "##room", "bank", "##s", "hello", "hello", "hello", "[SEP]")
    ]


def test_the_id_that_fills_rows_up_is_pads() -> None:
    document = tokenizer()
    document["model"]["vocab"] = {word: 19 - number for number, word in enumerate(WORDS)}
    document["added_tokens"] = []
    assert wordpiece.rewritten(json.dumps(document).encode(), MODEL_WORDS).pad == 19


def test_nothing_else_of_the_file_comes_through() -> None:
    document = tokenizer() | {"decoder": {"type": "Sequence"}, "remark": "x"}
    document["model"]["dropout"] = 0.5
    document["post_processor"]["pair"] = [{"Sequence": {"id": "A", "type_id": 0}}] * 1000
    served = rewritten(document)
    assert set(served) == set(tokenizer())
    assert set(served["model"]) == set(tokenizer()["model"])
    assert (served["decoder"], len(served["post_processor"]["pair"])) == (None, 5)


@given(st.text(max_size=60))
def test_a_text_is_cut_as_before(text: str) -> None:
    came = Tokenizer.from_str(json.dumps(tokenizer()))
    came.no_truncation()
    came.no_padding()
    assert Tokenizer.from_str(json.dumps(rewritten(tokenizer()))).encode(text).ids == came.encode(text).ids


Change = Callable[[dict[str, Any]], Any]


def put(*path: Any, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


SPECIAL = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
REFUSED: dict[str, tuple[Change, str]] = {
    "BPE": (put("model", "type", value="BPE"), "BPE"),
    "no model": (put("model", value=None), "None"),
    "a model that is a list": (put("model", value=[]), "model"),
    "no vocabulary": (put("model", "vocab", value={}), "vocabulary"),
    "a vocabulary that is a list": (put("model", "vocab", value=["a"]), "vocabulary"),
    "unknown words without a token": (put("model", "unk_token", value="[NONE]"), "unknown words"),
    "unknown words with a list": (put("model", "unk_token", value=[]), "unknown words"),
    "no prefix": (put("model", "continuing_subword_prefix", value=None), "prefix"),
    "endless words": (put("model", "max_input_chars_per_word", value=10**9), "max_input_chars_per_word"),
    "an id that the model has not": (put("model", "vocab", "hello", value=20), "'hello'"),
    "an id below zero": (put("model", "vocab", "hello", value=-1), "'hello'"),
    "an id in words": (put("model", "vocab", "hello", value="5"), "'hello'"),
    "half of a character": (put("model", "vocab", "\ud800", value=7), "no text"),
    "a normalizer by patterns": (
        put("normalizer", value={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}),
        "Replace",
    ),
    "a row of normalizers": (put("normalizer", value={"type": "Sequence", "normalizers": []}), "Sequence"),
    "no normalizer": (put("normalizer", value=None), "None"),
    "a setting that is none": (put("normalizer", "pattern", value="x"), "settings"),
    "a setting in words": (put("normalizer", "lowercase", value="yes"), "settings"),
    "cutting by patterns": (put("pre_tokenizer", value={"type": "Split", "pattern": {"Regex": "(a+)+$"}}), "Split"),
    "nothing around a text": (put("post_processor", value=None), "None"),
    "a row of post processors": (put("post_processor", value={"type": "Sequence"}), "Sequence"),
    "a text a thousand times": (
        put("post_processor", "single", value=[SPECIAL, *[TEXT] * 1000, SPECIAL]),
        "before a text",
    ),
    "two texts": (put("post_processor", "single", value=[TEXT, TEXT, TEXT]), "before a text"),
    "another text": (put("post_processor", "single", 1, "Sequence", "id", value="B"), "before a text"),
    "an end that is unknown": (put("post_processor", "single", 2, "SpecialToken", "id", value="</s>"), "before a text"),
    "an end that is a list": (put("post_processor", "single", 2, "SpecialToken", "id", value=[]), "before a text"),
    "a template in words": (put("post_processor", "single", value="[CLS] $A [SEP]"), "before a text"),
    "BertProcessing of nothing": (
        put("post_processor", value={"type": "BertProcessing", "sep": [], "cls": 1}),
        "before",
    ),
    "added tokens that are none": (put("added_tokens", value={"a": 1}), "added_tokens"),
    "an added token of nothing": (put("added_tokens", 0, "content", value=""), "added token"),
    "an added token that is long": (put("added_tokens", 0, "content", value="x" * 257), "added token"),
    "an added token in numbers": (put("added_tokens", 0, value=7), "added token"),
    "an added token of another id": (put("added_tokens", 0, "id", value=3), "another id"),
    "an added token beyond the model": (put("added_tokens", 0, "id", value=20), "knows 20"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_berts_own_is_refused_by_name(case: str) -> None:
    change, says = REFUSED[case]
    document = tokenizer()
    change(document)
    with pytest.raises(ImportRefused, match=r"tokenizer\.json is not served") as caught:
        rewritten(document)
    assert says in caught.value.message
    assert caught.value.code == "encoder_tokenizer"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"[" * 100_000, b'"x"', b"{"])
def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(ImportRefused, match="no JSON object"):
        wordpiece.rewritten(content, MODEL_WORDS)

"""A tokenizer.json that somebody else made: BERT's own parts are read from it, each by name, and written anew.

The `tokenizers` library does whatever such a file says, with patterns and templates of any cost. What is written here
takes linear time and puts one token before a text and one behind it; cutting off and filling up are the server's to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.data.archive import shown
from training.errors import ImportRefused

MOST_BYTES = 32 * 2**20
MOST_WORD_CHARACTERS = 1000
MOST_ADDED = 10_000
MOST_ADDED_CHARACTERS = 256
PAD = "[PAD]"
_NORMALIZER = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
_ADDED = ("single_word", "lstrip", "rstrip", "normalized", "special")
_HINT = "upload the tokenizer.json of a BERT model: AutoTokenizer.from_pretrained(…).save_pretrained(folder)"
Json = dict[str, Any]
Vocabulary = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The file that is served, the id that fills rows up, and whether it takes capitals for small letters."""

    content: bytes
    pad: int
    lowercases: bool


def rewritten(content: bytes, words: int) -> Rewritten:
    """`words`: how many ids the model knows."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise refused("it is no JSON object")
    model = _model(_part(document, "model", "WordPiece"), words)
    vocabulary: Vocabulary = model["vocab"]
    _part(document, "pre_tokenizer", "BertPreTokenizer")
    served: Json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(document.get("added_tokens") or [], vocabulary, words),
        "normalizer": _normalizer(_part(document, "normalizer", "BertNormalizer")),
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _around(_ends(document, vocabulary), vocabulary),
        "decoder": None,
        "model": model,
    }
    try:
        written = json.dumps(served, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise refused("a token is no text") from None
    return Rewritten(written, vocabulary.get(PAD, 0), served["normalizer"].get("lowercase") is True)


def _part(document: Json, key: str, *kinds: str) -> Json:
    part = document.get(key)
    kind = part.get("type") if isinstance(part, dict) else part
    if key == "model" and isinstance(part, dict) and kind is None:
        kind = "WordPiece"  # files of before 2022 leave it out; what a WordPiece has is looked at below
    if not isinstance(part, dict) or kind not in kinds:
        raise refused(f"the {key} is {shown(str(kind))}, not {' or '.join(kinds)}")
    return part


def _model(model: Json, words: int) -> Json:
    vocabulary, longest = model.get("vocab"), model.get("max_input_chars_per_word", 100)
    unknown, prefix = model.get("unk_token"), model.get("continuing_subword_prefix")
    if not isinstance(vocabulary, dict) or not isinstance(unknown, str) or not isinstance(prefix, str):
        raise refused("there is no vocabulary, no token for unknown words, or no prefix of inner pieces")
    if unknown not in vocabulary:
        raise refused(f"the token for unknown words, {shown(unknown)}, is not in the vocabulary")
    if type(longest) is not int or not 1 <= longest <= MOST_WORD_CHARACTERS:
        raise refused(f"max_input_chars_per_word is {shown(str(longest))}, not 1 to {MOST_WORD_CHARACTERS}")
    for word, number in vocabulary.items():
        _check_id(word, number, words)
    return {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": prefix,
        "max_input_chars_per_word": longest,
        "vocab": vocabulary,
    }


def _check_id(word: str, number: Any, words: int) -> None:
    if type(number) is not int or not 0 <= number < words:
        raise refused(f"token {shown(word)} has the id {shown(str(number))}; the model knows {words}")


def _normalizer(part: Json) -> Json:
    settings = {key: part.get(key) for key in _NORMALIZER}
    if set(part) - {"type", *_NORMALIZER} or not all(value in (None, True, False) for value in settings.values()):
        raise refused("the normalizer has settings that are not BertNormalizer's")
    return {"type": "BertNormalizer", **{key: value for key, value in settings.items() if value is not None}}


def _ends(document: Json, vocabulary: Vocabulary) -> tuple[str, str]:
    """The token before a text and the one behind it."""
    part = _part(document, "post_processor", "TemplateProcessing", "BertProcessing")
    if part["type"] == "BertProcessing":
        ends = [end[0] if isinstance(end, list) and end else None for end in (part.get("cls"), part.get("sep"))]
    else:
        ends = _ends_of(part.get("single"))
    first, last = ends
    if not isinstance(first, str) or not isinstance(last, str) or not {first, last} <= vocabulary.keys():
        raise refused("the post_processor does not put a token of the vocabulary before a text and one behind it")
    return first, last


def _ends_of(template: Any) -> list[Any]:
    """What stands around the text in a template of three pieces."""
    if not isinstance(template, list) or len(template) != 3 or not isinstance(template[1], dict):
        return [None, None]
    text = template[1].get("Sequence")
    is_text = isinstance(text, dict) and text.get("id") == "A"
    return [_special(template[0]), _special(template[2])] if is_text else [None, None]


def _special(piece: Any) -> Any:
    found = piece.get("SpecialToken") if isinstance(piece, dict) else None
    return found.get("id") if isinstance(found, dict) else None


def _around(ends: tuple[str, str], vocabulary: Vocabulary) -> Json:
    before, behind = ({"SpecialToken": {"id": end, "type_id": 0}} for end in ends)
    text, other = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [before, text, behind],
        "pair": [before, text, behind, other, behind],
        "special_tokens": {end: {"id": end, "ids": [vocabulary[end]], "tokens": [end]} for end in ends},
    }


def _added(added: Any, vocabulary: Vocabulary, words: int) -> list[Json]:
    """Words that are found before all others. They have the vocabulary's id where it knows them."""
    if not isinstance(added, list) or len(added) > MOST_ADDED:
        raise refused(f"added_tokens is no list of at most {MOST_ADDED}")
    found = []
    for entry in added:
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str) or not 0 < len(content) <= MOST_ADDED_CHARACTERS:
            raise refused(f"an added token is no text of 1 to {MOST_ADDED_CHARACTERS} characters")
        _check_id(content, entry.get("id"), words)
        if vocabulary.get(content, entry["id"]) != entry["id"]:
            raise refused(f"the added token {shown(content)} has another id than in the vocabulary")
        found.append({"id": entry["id"], "content": content, **{key: entry.get(key) is True for key in _ADDED}})
    return found


def refused(problem: str) -> ImportRefused:
    return ImportRefused(f"tokenizer.json is not served: {problem}", _HINT, code="encoder_tokenizer")

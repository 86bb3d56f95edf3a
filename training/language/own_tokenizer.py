"""tokenizer.json of a model that came as safetensors: its vocabulary as GGUF writes it, and the tokenizer itself.

The file is a stranger's and Rust code runs it: only the ways of splitting that are known here are let through, so no
expression of the stranger's is ever run. That it is the same tokenizer in the end is parity.py's to show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from training.data.archive import shown
from training.errors import ImportRefused
from training.language import tokenizer as tokenizers_
from training.language.vocabulary import MOST_TOKENS, TokenKind

Json = dict[str, Any]
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3, _QWEN2 = _WORDS % r"\p{N}{1,3}", _WORDS % r"\p{N}"
_AS_PUBLISHED = "upload tokenizer.json as it was published"
_AROUND = ("ByteLevel", "TemplateProcessing", "Sequence")  # post-processors: they put begin and end around a text


@dataclass(frozen=True, slots=True)
class OwnTokenizer:
    """What the file says."""

    pre: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    tokenizer: Any
    before: int | None  # the token that it puts before a text, and behind it
    behind: int | None

    def cut(self, text: str, special: bool) -> list[int]:
        with _named():
            return tokenizers_.ids(self.tokenizer, text, special=special)

    def id(self, token: str) -> int | None:
        found: int | None = self.tokenizer.token_to_id(token)
        return found


def read(document: Json, size: int) -> OwnTokenizer:
    """The tokenizer of a model whose embedding has `size` rows."""
    model = _part(document, "model")
    if model.get("type") != "BPE":
        raise _refused(f"the tokenizer is of the kind {shown(str(model.get('type')))}", "BPE is taken in")
    _check_plain(document, model)
    pre = _pre(document.get("pre_tokenizer"), whole_words=bool(model.get("ignore_merges")))
    added = _added(document)
    tokens, kinds = _tokens(_part(model, "vocab"), added, size)
    merges = _merges(model.get("merges"))
    made = _made(document, model)
    before, behind = _around(made)
    return OwnTokenizer(pre, tokens, kinds, merges, made, before, behind)


def _refused(problem: str, hint: str, code: str = "tokenizer_unknown") -> ImportRefused:
    return ImportRefused(problem, hint, code=code)


def _part(document: Json, name: str) -> Json:
    found = document.get(name)
    if not isinstance(found, dict):
        raise _refused(f"tokenizer.json has no {name}", _AS_PUBLISHED, "document_invalid")
    return found


def _check_plain(document: Json, model: Json) -> None:
    """llama.cpp has none of these for byte-level vocabularies."""
    if (normalizer := document.get("normalizer")) is not None:
        kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
        raise _refused(f"tokenizer.json normalises text by {shown(str(kind))}", "tokenizers without are taken in")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback"):
        if model.get(key) not in (None, False, ""):
            raise _refused(f"tokenizer.json has {key} = {shown(str(model[key]))}", "tokenizers without are taken in")
    processor = document.get("post_processor")
    if processor is not None and (not isinstance(processor, dict) or processor.get("type") not in _AROUND):
        raise _refused("tokenizer.json has an unknown post-processor", f"{', '.join(_AROUND)} are taken in")


def _pre(pre_tokenizer: Any, *, whole_words: bool) -> str:
    """The name that llama.cpp has for this way of splitting."""
    steps = pre_tokenizer.get("pretokenizers") if _type(pre_tokenizer) == "Sequence" else [pre_tokenizer]
    found = [_step(step) for step in steps] if isinstance(steps, list) else []
    ways = {
        ("digits", "gpt2"): "smollm",
        ("gpt2",): "gpt-2",
        (_LLAMA3, "bytes"): "llama-bpe" if whole_words else "smaug-bpe",
        (_QWEN2, "bytes"): "qwen2",
    }
    name = ways.get(tuple(found))
    if name is None or whole_words != tokenizers_.SPLITTINGS[name].whole_words:
        kinds = ", ".join(_type(step) for step in steps[:4]) if isinstance(steps, list) else "nothing"
        raise _refused(
            f"tokenizer.json splits text by {shown(kinds)} in a way that is not known",
            f"known are the ways of {', '.join(ways.values())}",
        )
    return name


def _type(step: Any) -> str:
    return str(step.get("type")) if isinstance(step, dict) else "nothing"


def _step(step: Any) -> str:
    kind = _type(step)
    if kind == "Digits" and step.get("individual_digits") is True:
        return "digits"
    if kind == "ByteLevel" and step.get("add_prefix_space") is False:
        return "gpt2" if step.get("use_regex", True) is True else "bytes"
    if kind == "Split" and step.get("behavior") == "Isolated" and step.get("invert") is False:
        pattern = step.get("pattern")
        return str(pattern.get("Regex")) if isinstance(pattern, dict) else "nothing"
    return "nothing"


def _added(document: Json) -> list[Json]:
    added = document.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > MOST_TOKENS:
        raise _refused("tokenizer.json has no usable added_tokens", _AS_PUBLISHED, "document_invalid")
    for token in added:
        if not isinstance(token, dict) or type(token.get("id")) is not int or not isinstance(token.get("content"), str):
            raise _refused("an added token has no id and content", _AS_PUBLISHED, "document_invalid")
        for key in ("single_word", "lstrip", "rstrip"):
            if token.get(key):
                raise _refused(f"the added token {shown(token['content'])} has {key}", "tokens without are taken in")
    return added


def _tokens(vocabulary: Mapping[str, Any], added: Sequence[Json], size: int) -> tuple[list[str], list[int]]:
    """Tokens by their id; rows of the embedding without one get a name that no text has."""
    if size > MOST_TOKENS:
        raise _refused(f"the embedding has {size} rows", f"{MOST_TOKENS} are the most", "vocabulary")
    tokens, kinds = [f"[PAD{place}]" for place in range(size)], [int(TokenKind.UNUSED)] * size
    entries = [(token, place, TokenKind.NORMAL) for token, place in vocabulary.items()]
    entries += [
        (token["content"], token["id"], TokenKind.CONTROL if token.get("special") else TokenKind.USER_DEFINED)
        for token in added
    ]
    for token, place, kind in entries:
        if type(place) is not int or not 0 <= place < size:
            raise _refused(
                f"token {shown(token)} has the id {shown(str(place))}, the embedding {size} rows",
                "upload the tokenizer that belongs to the model",
                "vocabulary",
            )
        tokens[place], kinds[place] = token, int(kind)
    return tokens, kinds


def _merges(merges: Any) -> list[str]:
    if not isinstance(merges, list):
        raise _refused("tokenizer.json has no merges", _AS_PUBLISHED, "document_invalid")
    lines = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise _refused(f"the merge {shown(str(merge))} is no pair", _AS_PUBLISHED, "document_invalid")
        lines.append(" ".join(pair))
    return lines


def _made(document: Json, model: Json) -> Any:
    """The package's own tokenizer, of the parts that were looked at."""
    parts = {
        "version": "1.0",
        "added_tokens": document.get("added_tokens") or [],
        "pre_tokenizer": document.get("pre_tokenizer"),
        "post_processor": document.get("post_processor"),
        "model": model,
    }
    library = tokenizers_.imported()
    with _named():
        return library.Tokenizer.from_str(json.dumps(parts))


@contextmanager
def _named() -> Iterator[None]:
    """What the package does with a stranger's file: it raises bare Exception, and Rust's panics as a BaseException."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as problem:
        raise _refused(
            f"tokenizer.json cannot be used: {str(problem)[:200]}", _AS_PUBLISHED, "document_invalid"
        ) from None


def _around(made: Any) -> tuple[int | None, int | None]:
    """The token before and the one behind a text, found by trying."""
    with _named():
        inner = made.encode("a", add_special_tokens=False).ids
        whole = made.encode("a", add_special_tokens=True).ids
    for before in (0, 1):
        behind = len(whole) - len(inner) - before
        if behind in (0, 1) and whole[before : len(whole) - behind] == inner:
            return whole[0] if before else None, whole[-1] if behind else None
    raise _refused("tokenizer.json puts several tokens around a text", "one before and one behind it are taken in")

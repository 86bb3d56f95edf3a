"""Text or tokens, one or many: the `prompt` of completions and the `input` of embeddings have the same four shapes."""

from __future__ import annotations

from typing import Any

from strongroom.openai.problems import refusal, shown

MOST_TOKEN = 2**31 - 1
Prompt = str | tuple[int, ...]


def read(given: Any, most: int) -> tuple[Prompt, ...]:
    """A text, a list of texts, a list of token ids, or a list of those lists; at most `most` of them."""
    if type(given) is str:
        return (given,)
    if type(given) is not list:
        raise refusal("invalid_type", f"must be a text, a list of texts or token ids, is {shown(given)}")
    if not given:
        raise refusal("empty_array", "must have at least 1 entry, has 0")
    if type(given[0]) is int:
        return (_tokens(given),)
    if len(given) > most:
        raise refusal("array_above_max_length", f"must have at most {most} entries, has {len(given)}")
    return tuple([_one(entry, type(given[0]), index) for index, entry in enumerate(given)])


def _one(entry: Any, kind: type, index: int) -> Prompt:
    if type(entry) is kind is str:
        return entry
    if type(entry) is kind is list:
        return _tokens(entry, index)
    raise refusal("invalid_type", f"must be a text or token ids as the other entries, is {shown(entry)}", index)


def _tokens(given: list[Any], *at: int) -> tuple[int, ...]:
    if not given:
        raise refusal("empty_array", "must have at least 1 token, has 0", *at)
    if set(map(type, given)) != {int} or min(given) < 0 or max(given) > MOST_TOKEN:
        raise refusal("invalid_value", f"must have only token ids, whole numbers from 0 to {MOST_TOKEN}", *at)
    return tuple(given)

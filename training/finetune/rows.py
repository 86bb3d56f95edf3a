"""From conversations to tokens: the model's chat template, llama.cpp's own tokenizer, and which tokens are learned.

What is learned is every answer of the assistant (as OpenAI's fine-tuning has it; weight 0 leaves one out), and of it
exactly what a served model would have to say: it begins where the template's prompt for an answer ends, and it ends
with the first token that ends an answer. Text in messages that looks like a control token stays text, as in serving.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from chat import Marks, TemplateRefused
from training.data.chat_jsonl import Conversation, Message, Preference, digest
from training.errors import DatasetContradictsSpec
from training.finetune.base_model import Base, BaseUnsuitable
from training.language.tokenizer import adds_begin

NOW = datetime(2024, 7, 26, tzinfo=UTC)  # for templates that write the date: the same rows are the same tokens any day
Found = Conversation | Preference


class Tokenizer(Protocol):
    """llama.cpp's, in the process that trains (served.py) and in tests by itself (trial.py)."""

    def tokens(self, text: str, *, special: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """`places`: which of the tokens are learned; never the first. `prompt`: how many come before the last answer."""

    tokens: array[int]
    places: array[int]
    prompt: int


@dataclass(frozen=True, slots=True)
class Example:
    """A row of the data set by its number: one sequence of tokens, or the preferred one and the other."""

    row: int
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        return sum(len(row.tokens) for row in self.rows)

    @property
    def longest(self) -> int:
        return max(len(row.tokens) for row in self.rows)


class Wording:
    """Writes conversations in one base's tokens. One thread at a time."""

    def __init__(self, base: Base, tokenizer: Tokenizer, ends: frozenset[int]) -> None:
        self._template, self._tokenizer, self._ends = base.template, tokenizer, ends
        self._end, self._begin = base.words.end, base.words.begin if adds_begin(base.words) else None
        control, user = base.words.specials()
        self._controls = {text: base.words.tokens.index(text) for text in (*control, *user)}
        self._marks = Marks(self._controls)

    def example(self, found: Found) -> Example:
        if isinstance(found, Conversation):
            return Example(found.row, (self._row(found.row, found.messages),))
        pair = ((*found.question, answer) for answer in (found.preferred, found.other))
        return Example(found.row, tuple(self._row(found.row, messages) for messages in pair))

    def _row(self, number: int, messages: Sequence[Message]) -> Row:
        whole = partial(self._rendered, number, prompting=False)
        _, said = self._marks.rendered(whole, [message.plain() for message in messages])
        tokens, places = array("i"), array("i")
        prompt, done = 0, ""
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._rendered(number, said[:place], prompting=True)
            after = whole(said[: place + 1])
            if not (before.startswith(done) and after.startswith(before)):
                raise _unsuitable(number)
            tokens += self._tokens(before[len(done) :])
            if not done and self._begin is not None and tokens[:1] != array("i", [self._begin]):
                tokens.insert(0, self._begin)
            prompt, done = len(tokens), after
            answer, length = self._answer(after[len(before) :], is_last=place == len(messages) - 1)
            if message.is_learned:
                places.extend(range(prompt, prompt + length))
            tokens += answer
        if not places or not places[0]:
            raise DatasetContradictsSpec(f"row {number} has no token to learn", "leave the row out")
        return Row(tokens, places, prompt)

    def _answer(self, text: str, *, is_last: bool) -> tuple[array[int], int]:
        """An answer's tokens and how many of them are its own: up to the first that ends an answer."""
        answer = self._tokens(text)
        length = next((place + 1 for place, token in enumerate(answer) if token in self._ends), 0)
        if length:
            return (answer[:length] if is_last else answer), length
        if is_last:  # the template ends no answer by itself
            answer.append(self._end)
        return answer, len(answer)

    def _rendered(self, number: int, messages: Sequence[dict[str, str]], *, prompting: bool) -> str:
        try:
            return self._template.render(messages, add_generation_prompt=prompting, now=NOW)
        except TemplateRefused as refusal:
            what = f"the base's chat template refuses row {number}: {refusal.message}"
            raise DatasetContradictsSpec(what, refusal.hint) from None

    def _tokens(self, text: str) -> array[int]:
        found = array("i")
        for place, part in enumerate(self._marks.parts(text)):
            if place % 2:
                found.append(self._controls[part])
            elif part:
                found.extend(self._tokenizer.tokens(self._marks.words(part), special=False))
        return found


def check_length(examples: Sequence[Example], most_tokens: int) -> None:
    """DatasetContradictsSpec names the first row that is too long, and how many are."""
    long = sorted(example.row for example in examples if example.longest > most_tokens)
    if long:
        has = next(example.longest for example in examples if example.row == long[0])
        others = f", and {len(long) - 1} more are too long" if len(long) > 1 else ""
        raise DatasetContradictsSpec(
            f"row {long[0]} has {has} tokens{others}",
            f"{most_tokens} are the most (train.max_tokens, and what the base looks back on): shorten the rows",
        )


def _unsuitable(row: int) -> BaseUnsuitable:
    return BaseUnsuitable(
        f"the base's chat template writes an answer of row {row} otherwise than behind its own prompt for one",
        "use rows with one answer each, or a base whose template only appends",
    )


def split(found: Sequence[Found], fraction: float, seed: int) -> tuple[list[Found], list[Found]]:
    """Those that are learned and those that validate, each in the order of the file.

    A row's side is a function of what it says, so that rows that say the same are on the same side.
    """
    salt = seed.to_bytes(8, "little")
    digests = [hashlib.blake2b(digest(one), digest_size=16, salt=salt).digest() for one in found]
    distinct = sorted(set(digests))
    if len(distinct) < 2:
        raise DatasetContradictsSpec(
            "the data set has one distinct row, and one must validate what the others teach", "add rows"
        )
    validating = frozenset(distinct[: min(max(1, round(len(distinct) * fraction)), len(distinct) - 1)])
    sides: tuple[list[Found], list[Found]] = ([], [])
    for one, mark in zip(found, digests, strict=True):
        sides[mark in validating].append(one)
    return sides

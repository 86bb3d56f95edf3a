"""A scheduler of the tiny model driven step by step, and what came of each sequence, held against the reference."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.language.llama import Weights
from inference.language.requests import Logprob, Sampling
from inference.language.sampling import Sampler
from inference.language.scheduler import End, Event, Scheduler
from inference.language.scheduler import Sequence as Choice
from inference.language.stops import Text
from tests.inference.language import reference, tiny

MOST_STEPS = 3000
GREEDY = Sampling(temperature=0)


@dataclass
class Came:
    """Of one sequence."""

    text: str = ""
    logprobs: list[Logprob] = field(default_factory=list)
    end: End | None = None
    steps: list[int] = field(default_factory=list)  # in which something came

    @property
    def tokens(self) -> list[int]:
        return [told.token for told in self.logprobs]


class Drive:
    """`put` sequences, `step`, `run` to their end."""

    def __init__(self, weights: Weights, *, slots: int, cells: int, chunk: int) -> None:
        self.weights = weights
        self.context = weights.context(sequences=slots, cells=cells, chunk=chunk, threads=1)
        self.scheduler = Scheduler(self.context, weights.vocabulary)
        self.came: dict[Choice, Came] = {}
        self.events: list[Event] = []

    def put(
        self,
        prompt: str | Sequence[int],
        made: int = 12,
        *,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
        mask: Any = None,
        **fields: Any,
    ) -> Choice:
        """`made` tokens are to come; end-of-text tokens end nothing unless `ignore_end=False`."""
        tokens = self.tokens(prompt)
        defaults: dict[str, Any] = {"owner": None, "index": 0, "lane": 0, "ignore_end": True, "logprobs": 0}
        sampler = Sampler(sampling, self.weights.vocabulary.size, tokens, choice=fields.get("index", 0), mask=mask)
        choice = Choice(tokens=tokens, most=len(tokens) + made, sampler=sampler, text=Text(stops), **defaults | fields)
        self.came[choice] = Came()
        self.scheduler.put(choice)
        return choice

    def tokens(self, prompt: str | Sequence[int]) -> array[int]:
        return self.weights.vocabulary.tokens(prompt, special=True) if isinstance(prompt, str) else array("i", prompt)

    def step(self) -> list[Event]:
        events = self.scheduler.step()
        for event in events:
            came = self.came[event.sequence]
            assert came.end is None, "something came after the end"
            came.text += event.text
            came.logprobs += [] if event.logprob is None else [event.logprob]
            came.end = event.end
            came.steps.append(self.scheduler.steps)
        self.events += events
        return events

    def run(self, *choices: Choice, until: Callable[[], bool] | None = None) -> None:
        """To the end of all, or of these, or until it holds."""
        wanted = choices or tuple(self.came)
        for _ in range(MOST_STEPS):
            if until() if until is not None else all(self.came[choice].end for choice in wanted):
                return
            self.step()
        raise AssertionError(f"not there after {MOST_STEPS} steps")

    def made(self, choice: Choice) -> list[int]:
        return list(choice.tokens[choice.prompt_tokens :])

    def check(self, choice: Choice, adapter: bytes | None = None) -> None:
        """Every token was the likeliest by the reference, or next to it, and its log-probability is the reference's."""
        made = self.made(choice)
        assert self.came[choice].tokens == made
        expected = reference.logprobs(choice.tokens[: len(choice.tokens) - 1], adapter)[choice.prompt_tokens - 1 :]
        told = np.array([one.logprob for one in self.came[choice].logprobs])
        own = expected[np.arange(len(made)), made]
        np.testing.assert_allclose(told, own, atol=reference.TOLERANCE, rtol=0)
        assert (expected.max(axis=1) - own).max() < reference.TOLERANCE


class Scripted:
    """A mask that has just these tokens come, one after the other, and then anything."""

    def __init__(self, tokens: Sequence[int], size: int = len(tiny.TOKENS)) -> None:
        self._left, self._size = list(tokens), size

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        if not self._left:
            return None
        return np.arange(self._size) == self._left[0]

    def accept(self, token: int) -> None:
        del self._left[:1]


def words(seed: int, count: int) -> list[int]:
    """So many tokens of text."""
    return [int(token) for token in np.random.default_rng(seed).integers(4, len(tiny.TOKENS), count)]


LONG = words(0, 100)


@contextmanager
def driven(weights: Weights, *, slots: int = 4, cells: int = 512, chunk: int = 64) -> Iterator[Drive]:
    drive = Drive(weights, slots=slots, cells=cells, chunk=chunk)
    try:
        yield drive
    finally:
        drive.context.free()

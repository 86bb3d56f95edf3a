"""Principals take turns before a model computes, too: at the text thread and at a text encoder."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from inference.errors import DeadlineExceeded, InferenceError, InputRefused
from inference.language.encoding import MOST_TEXTS, Encoding
from inference.language.requests import Generate
from inference.protocol import COUNT, COUNTED, EMBEDDED, Array, Buffer, Frame, FrameReader
from tests.inference.language.driving import LONG
from tests.inference.language.talking import Talk, talking
from tests.inference.language.words import greedy

GENERATE = Generate(prompt=tuple(LONG), sampling=greedy(1))
WAIT_SECONDS = 30.0


@pytest.fixture
def talk() -> Iterator[Talk]:
    with talking() as made:
        yield made


def test_one_request_is_prepared_before_the_many_of_another_principal(talk: Talk) -> None:
    gate = threading.Event()
    talk.base.text.ask(0, lambda: gate.wait(WAIT_SECONDS))
    many = [talk.ask(GENERATE, kind=COUNT, principal=1) for _ in range(8)]
    one = talk.ask(GENERATE, kind=COUNT, principal=2)
    gate.set()
    talk.until(lambda: len(talk.link.frames) == 9)
    order = [frame.request for frame in talk.link.frames if frame.kind == COUNTED]
    assert order.index(one) <= 1
    assert [number for number in order if number != one] == many


class Encoder:
    """Vectors that say of which text they are; stands still until it may go on."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked: list[int] = []

    def check(self, texts: Sequence[str]) -> None:
        for index, text in enumerate(texts):
            if text == "long":
                raise InputRefused(f"/input/{index}", "too_long", "is too long", "shorter")

    def embed(self, texts: Sequence[str]) -> tuple[Array, list[int]]:
        self.gate.wait(WAIT_SECONDS)
        self.asked.append(len(texts))
        self.check(texts)
        if "panic" in texts:
            raise BaseException("as a library's panic is")
        return np.array([[float(text)] for text in texts], "f4"), [1] * len(texts)


class Link:
    """Keeps what is answered."""

    def __init__(self) -> None:
        self.answers: dict[int, Frame | InferenceError] = {}

    def send(self, parts: list[Buffer]) -> None:
        (frame,) = FrameReader().feed(b"".join(parts))
        assert frame.kind == EMBEDDED
        self.answers[frame.request] = frame

    def refuse(self, number: int, error: InferenceError) -> None:
        self.answers[number] = error


def embedded(ask: Callable[[Encoding, Link], int], encoder: Encoder) -> dict[int, Frame | InferenceError]:
    """What is answered, in order, when so many requests were put; then the encoder goes on."""

    async def whole() -> dict[int, Frame | InferenceError]:
        link, freed = Link(), asyncio.Event()
        encoding = Encoding(encoder, asyncio.get_running_loop())  # type: ignore[arg-type]  # as much of one as is used
        count = ask(encoding, link)
        encoder.gate.set()
        encoding.retire(freed.set)
        async with asyncio.timeout(WAIT_SECONDS):
            await freed.wait()
        assert len(link.answers) == count
        return link.answers

    return asyncio.run(whole())


def put(
    encoding: Encoding, link: Link, number: int, texts: Sequence[Any], principal: int, deadline: float = float("inf")
) -> None:
    encoding.put(link, number, orjson.dumps([str(text) for text in texts]), deadline, principal)


def vectors(answer: Frame | InferenceError) -> list[float]:
    assert isinstance(answer, Frame)
    assert answer.fields()["tokens"] == [1] * (len(answer.body) // 4)
    found: list[float] = np.frombuffer(answer.body, "<f4").tolist()
    return found


def test_few_texts_are_answered_before_the_many_of_another_principal() -> None:
    many, encoder = range(5 * MOST_TEXTS + 7), Encoder()

    def ask(encoding: Encoding, link: Link) -> int:
        put(encoding, link, 1, many, 1)
        put(encoding, link, 2, many, 1)
        put(encoding, link, 3, range(3), 2)
        return 3

    answers = embedded(ask, encoder)
    assert list(answers) == [3, 1, 2]
    assert vectors(answers[3]) == [0, 1, 2]
    assert vectors(answers[1]) == vectors(answers[2]) == list(many)
    assert max(encoder.asked) == MOST_TEXTS


def test_a_text_that_is_too_long_fails_its_request_before_any_part_of_it_is_computed() -> None:
    encoder = Encoder()

    def ask(encoding: Encoding, link: Link) -> int:
        put(encoding, link, 1, [*range(MOST_TEXTS + 5), "long"], 1)
        put(encoding, link, 2, range(3), 2)
        return 2

    answers = embedded(ask, encoder)
    refused = answers[1]
    assert isinstance(refused, InputRefused)
    assert refused.path == f"/input/{MOST_TEXTS + 5}"
    assert vectors(answers[2]) == [0, 1, 2]
    assert sum(encoder.asked) == 3


def test_a_panic_leaves_nobody_waiting_and_the_next_is_answered() -> None:
    def ask(encoding: Encoding, link: Link) -> int:
        put(encoding, link, 1, [*range(MOST_TEXTS - 1), "panic"], 1)
        put(encoding, link, 2, range(3), 1)
        return 2

    answers = embedded(ask, Encoder())
    assert isinstance(answers[1], InferenceError)
    assert vectors(answers[2]) == [0, 1, 2]


def test_what_was_begun_before_its_deadline_is_answered_whole() -> None:
    """It is paid for; a part of it would be nobody's."""
    many, encoder = range(MOST_TEXTS + 5), Encoder()

    def ask(encoding: Encoding, link: Link) -> int:
        deadline = time.monotonic() + 1
        put(encoding, link, 1, many, 1, deadline)
        put(encoding, link, 2, many, 2, deadline)
        time.sleep(1.2)  # both deadlines pass while the first one's first part is computed
        return 2

    answers = embedded(ask, encoder)
    assert vectors(answers[1]) == list(many)
    assert isinstance(answers[2], DeadlineExceeded)

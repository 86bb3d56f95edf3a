"""What waits for a text encoder: requests for embeddings, computed together in a thread, principals in turns.

    embed ─→ turns ─→ [ of those whose turn it is, at most MOST_TEXTS texts ] ─→ one embedded each

Knows no HTTP; a request that fails by itself (a text too long) fails no other. One with many texts takes several turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import orjson

from inference.errors import DeadlineExceeded, InferenceError, InputRefused, QueueFull
from inference.language.embedding import TextEncoder, Vectors
from inference.language.turns import Turns
from inference.protocol import EMBEDDED, Buffer, frame_parts, raw_bytes

MOST_TEXTS: Final = 256  # computed together
MOST_WAITING: Final = 1024
MOST_WAITING_BYTES: Final = 64 << 20


class Link(Protocol):
    """Where answers go: a connection of the cell."""

    def send(self, parts: list[Buffer]) -> None: ...

    def refuse(self, number: int, error: InferenceError) -> None: ...


@dataclass(eq=False, slots=True)
class Asked:
    link: Link
    number: int
    lane: Hashable
    texts: list[str]
    size: int
    deadline: float  # of time.monotonic()
    vectors: list[Vectors] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # of the texts that are done
    failure: InferenceError | None = None

    @property
    def left(self) -> list[str]:
        return self.texts[len(self.tokens) :]


class Encoding(threading.Thread):
    """One encoder's queue. `put` and `retire` are for the event loop's thread."""

    def __init__(self, encoder: TextEncoder, loop: Any) -> None:
        super().__init__(name="encoding", daemon=True)
        self._encoder, self._loop = encoder, loop
        self._turns: Turns[Asked] = Turns()
        self._count = self._bytes = 0
        self._freed: Callable[[], None] | None = None
        self.start()

    def put(self, link: Link, number: int, body: bytes, deadline: float, principal: Any = None) -> None:
        """Takes the request in; InputRefused, QueueFull."""
        if self._count >= MOST_WAITING or self._bytes + len(body) > MOST_WAITING_BYTES:
            raise QueueFull(f"{self._count} requests wait already")
        texts = _texts(body)
        self._count += 1
        self._bytes += len(body)
        lane = principal if type(principal) is int else 0
        self._turns.enter(Asked(link, number, lane, texts, len(body), deadline))

    def retire(self, freed: Callable[[], None]) -> None:
        """Answers what waits, then ends and calls `freed` on the loop's thread."""
        self._freed = freed
        self._turns.end()

    def run(self) -> None:
        while (first := self._turns.take()) is not None:
            parts = self._parts(first)
            self._compute(parts)
            done: list[Asked] = []
            for asked, texts in parts:
                cost = sum(asked.tokens[-len(texts) :])
                if asked.failure is None and asked.left:
                    self._turns.back(asked, cost)
                else:
                    self._turns.leave(asked, cost)
                    done.append(asked)
            self._loop.call_soon_threadsafe(self._answer, done)
        self._loop.call_soon_threadsafe(self._freed)

    def _parts(self, first: Asked) -> list[tuple[Asked, list[str]]]:
        """Who is computed together, and with which of their texts."""
        parts, room = [], MOST_TEXTS
        asked: Asked | None = first
        while asked is not None:
            texts = asked.left[:room]
            parts.append((asked, texts))
            room -= len(texts)
            asked = self._turns.take(wait=False) if room else None
        return parts

    def _compute(self, parts: Sequence[tuple[Asked, list[str]]]) -> None:
        now, timely = time.monotonic(), []
        for asked, texts in parts:
            if asked.deadline < now and not asked.tokens:  # what was begun is paid for, and answered
                asked.failure = DeadlineExceeded("the deadline passed while the request waited")
            else:
                timely.append((asked, texts))
        if timely:
            self._embed(timely)

    def _embed(self, parts: Sequence[tuple[Asked, list[str]]]) -> None:
        try:
            for asked, texts in parts:
                if not asked.tokens and len(texts) < len(asked.texts):
                    self._encoder.check(asked.texts)  # refused before its first part is computed
            vectors, tokens = self._encoder.embed([text for _, texts in parts for text in texts])
        except InferenceError as error:
            if len(parts) == 1:
                parts[0][0].failure = error
            else:
                for part in parts:
                    self._embed([part])
            return
        except BaseException:  # a defect of ours, or a library's panic, must not leave anybody waiting
            for asked, _ in parts:
                asked.failure = InferenceError("the cell failed on this request")
            return
        at = 0
        for asked, texts in parts:
            end = at + len(texts)
            asked.vectors.append(vectors[at:end])
            asked.tokens += tokens[at:end]
            at = end

    def _answer(self, done: Sequence[Asked]) -> None:
        for asked in done:
            self._count -= 1
            self._bytes -= asked.size
            if asked.failure is not None:
                asked.link.refuse(asked.number, asked.failure)
            else:
                vectors = asked.vectors[0] if len(asked.vectors) == 1 else np.concatenate(asked.vectors)
                fields = {"tokens": asked.tokens, "width": vectors.shape[1]}
                asked.link.send(frame_parts(EMBEDDED, asked.number, fields, [raw_bytes(vectors, "FP32")]))


def _texts(body: bytes) -> list[str]:
    try:
        texts = orjson.loads(body)
    except orjson.JSONDecodeError:
        texts = None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputRefused("/input", "datatype", "is no list of texts", "expected at least one text")
    return texts

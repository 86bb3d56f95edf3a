"""What waits for a text encoder: requests for embeddings; those that wait together are computed together, in a thread.

    embed ─→ queue ─→ [ all that wait, at most MOST_TEXTS ] ─→ one embedded each

Knows no HTTP; a request that fails by itself (a text too long) fails no other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from inference.errors import DeadlineExceeded, InferenceError, InputRefused, QueueFull
from inference.language.embedding import TextEncoder, Vectors
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
    texts: list[str]
    size: int
    deadline: float  # of time.monotonic()


Outcome = tuple[Vectors, list[int]] | InferenceError


class Encoding(threading.Thread):
    """One encoder's queue. `put` and `retire` are for the event loop's thread."""

    def __init__(self, encoder: TextEncoder, loop: Any) -> None:
        super().__init__(name="encoding", daemon=True)
        self._encoder, self._loop = encoder, loop
        self._queue: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._count = self._bytes = 0
        self._freed: Callable[[], None] | None = None
        self.start()

    def put(self, link: Link, number: int, body: bytes, deadline: float) -> None:
        """Takes the request in; InputRefused, QueueFull."""
        if self._count >= MOST_WAITING or self._bytes + len(body) > MOST_WAITING_BYTES:
            raise QueueFull(f"{self._count} requests wait already")
        texts = _texts(body)
        self._count += 1
        self._bytes += len(body)
        self._queue.put(Asked(link, number, texts, len(body), deadline))

    def retire(self, freed: Callable[[], None]) -> None:
        """Answers what waits, then ends and calls `freed` on the loop's thread."""
        self._freed = freed
        self._queue.put(None)

    def run(self) -> None:
        while (first := self._queue.get()) is not None:
            together, ended = self._those_waiting(first)
            now = time.monotonic()
            late = [asked for asked in together if asked.deadline < now]
            timely = [asked for asked in together if asked.deadline >= now]
            too_late: list[Outcome] = [DeadlineExceeded("the deadline passed while the request waited")] * len(late)
            outcomes = self._embedded(timely) if timely else []
            self._loop.call_soon_threadsafe(self._answer, late + timely, too_late + outcomes)
            if ended:
                break
        self._loop.call_soon_threadsafe(self._freed)

    def _those_waiting(self, first: Asked) -> tuple[list[Asked], bool]:
        together, count = [first], len(first.texts)
        while count < MOST_TEXTS:
            try:
                asked = self._queue.get_nowait()
            except queue.Empty:
                break
            if asked is None:
                return together, True
            together.append(asked)
            count += len(asked.texts)
        return together, False

    def _embedded(self, together: Sequence[Asked]) -> list[Outcome]:
        try:
            vectors, counts = self._encoder.embed([text for asked in together for text in asked.texts])
        except InferenceError as error:
            return [error] if len(together) == 1 else [self._embedded([asked])[0] for asked in together]
        except Exception:  # a defect of ours must not leave anybody waiting
            return [InferenceError("the cell failed on this request")] * len(together)
        outcomes: list[Outcome] = []
        at = 0
        for asked in together:
            end = at + len(asked.texts)
            outcomes.append((vectors[at:end], counts[at:end]))
            at = end
        return outcomes

    def _answer(self, together: Sequence[Asked], outcomes: Sequence[Outcome]) -> None:
        for asked, outcome in zip(together, outcomes, strict=True):
            self._count -= 1
            self._bytes -= asked.size
            if isinstance(outcome, InferenceError):
                asked.link.refuse(asked.number, outcome)
            else:
                vectors, counts = outcome
                fields = {"tokens": counts, "width": vectors.shape[1]}
                asked.link.send(frame_parts(EMBEDDED, asked.number, fields, [raw_bytes(vectors, "FP32")]))


def _texts(body: bytes) -> list[str]:
    try:
        texts = orjson.loads(body)
    except orjson.JSONDecodeError:
        texts = None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputRefused("/input", "datatype", "is no list of texts", "expected at least one text")
    return texts

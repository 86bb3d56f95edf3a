"""Who waits for what a cell says to a request: for one frame (`One`) or for many (`Reply`).

Knows frames and futures; which connection they come on is connection.py's, what they mean answers.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from inference.language.requests import Done, Tokens
from inference.protocol import (
    ANSWER,
    CANCEL,
    COUNTED,
    DESCRIBE,
    DONE,
    EMBEDDED,
    ERROR,
    TOKENS,
    WINDOW,
    AnswerReader,
    Array,
    Frame,
    ProtocolError,
    read_tensor,
)
from strongroom.deployments import answers
from strongroom.errors import Unavailable

WINDOW_TOKENS = 256  # that a cell may send ahead of a slow reader
MOST_UNHEARD = 2048  # pieces and ends: a window, what is under way beyond it, or two for each of the most choices
MOST_UNHEARD_BYTES = 64 << 20
LAST_WORDS_SECONDS = 30.0  # for the usage of a reply that nobody hears any more

Send = Callable[[int, int, Mapping[str, Any]], None]  # a kind, a request's number, fields


class EngineLost(Unavailable):
    """The cell ended before it answered."""

    code = "engine_lost"


class Answer(NamedTuple):
    """What a cell computed: outputs by name, the times, and how many items it computed together."""

    outputs: dict[str, Array]
    queue_us: int
    compute_us: int
    batch: int


class Waiter(Protocol):
    """Whoever waits for what a cell says to one request."""

    deadline: float

    @property
    def gone(self) -> bool:
        """Nobody waits any more."""

    def took(self, frame: Frame) -> bool:
        """Whether the request has ended with this frame; ProtocolError where it says nothing that it could."""

    def fail(self, error: Exception) -> None: ...

    def late(self) -> bool:
        """The deadline has passed: whether what the cell may say yet is of no use."""


class One:
    """One answer: the future of it."""

    __slots__ = ("_answers", "deadline", "future")

    def __init__(self, future: asyncio.Future[Any], deadline: float, answers: AnswerReader) -> None:
        self.future, self.deadline, self._answers = future, deadline, answers

    @property
    def gone(self) -> bool:
        return self.future.done()

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def late(self) -> bool:
        self.fail(answers.late(answers.Unheard))
        return True

    def took(self, frame: Frame) -> bool:
        future = self.future
        if future.done():
            return True
        if frame.kind == ANSWER:
            head = self._answers.read(frame.header, frame.body)
            if (excess := answers.excess(head.outputs)) is not None:
                future.set_exception(excess)
                return True
            outputs = {spec.name: read_tensor(spec, frame.body) for spec in head.outputs}
            future.set_result(Answer(outputs, head.queue_us, head.compute_us, head.batch))
        elif frame.kind == ERROR:
            future.set_exception(answers.error_of(frame.fields()))
        elif frame.kind == DESCRIBE:
            future.set_result(answers.interface(frame.body))
        elif frame.kind == EMBEDDED:
            future.set_result(answers.embedded(frame))
        elif frame.kind == COUNTED:
            future.set_result(int(frame.fields()["prompt_tokens"]))
        else:
            future.set_exception(EngineLost("the cell answered with something else"))
            raise ProtocolError(f"kind {frame.kind} is no answer")
        return True


class Reply:
    """What a language model says to one request, as it comes: `async for parts in reply`, then the end.

    Parts are Tokens and, for each of `n` choices, a Done. A reader that is behind holds up its own request only: the
    cell sends no more than a window ahead. Whoever stops before the end calls `cancel`. Who cancelled or was told that
    it is late may hear on, for what was used.
    """

    def __init__(self, send: Send, number: int, deadline: float, n: int, *, windowed: bool) -> None:
        self.number, self.deadline = number, deadline
        self._send, self._windowed = send, windowed
        self._open = set(range(n))  # choices that have not ended
        self._parts: list[Tokens | Done] = []
        self._bytes = 0  # of the frames that brought them
        self._error: Exception | None = None  # its end
        self._late: Exception | None = None  # told to its reader once, before all that comes yet
        self._ended = self._cancelled = self._overdue = False
        self._taken = 0
        self._waiting: asyncio.Future[None] | None = None

    @property
    def gone(self) -> bool:
        return False  # it hears to the end, for the usage's sake; only its deadline ends it

    def cancel(self) -> None:
        """Wants no more; what was made by then still comes, as the last part."""
        self._late = None
        if not self._ended and not self._cancelled:
            self._cancelled = True
            self._send(CANCEL, self.number, {})

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> list[Tokens | Done]:
        """All that has come since, at least one part."""
        while self._late is not None or not self._parts:
            if self._late is not None:
                late, self._late = self._late, None
                raise late
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            waiting = self._waiting = asyncio.get_running_loop().create_future()
            try:
                await waiting
            finally:
                if self._waiting is waiting:  # else somebody else hears it by now
                    self._waiting = None
        parts, self._parts, self._bytes = self._parts, [], 0
        if self._windowed and not self._ended:
            self._taken += len(parts)
            if self._taken >= WINDOW_TOKENS // 2:
                self._send(WINDOW, self.number, {"tokens": self._taken})
                self._taken = 0
        return parts

    def took(self, frame: Frame) -> bool:
        self._bytes += len(frame.header) + len(frame.body)
        if len(self._parts) > MOST_UNHEARD or self._bytes > MOST_UNHEARD_BYTES:
            raise ProtocolError("a reply that is further ahead than it may be")
        if frame.kind == TOKENS:
            part = answers.tokens(frame)
            if part.index not in self._open:
                raise ProtocolError("a piece of no open choice")
            self._parts.append(part)
        elif frame.kind == DONE:
            done = answers.done(frame)
            if done.index not in self._open:
                raise ProtocolError("the end of no open choice")
            self._open.remove(done.index)
            self._parts.append(done)
            self._ended = done.last
        elif frame.kind == ERROR:
            self.fail(answers.error_of(frame.fields()))
        else:
            self.fail(EngineLost("the cell answered with something else"))
            raise ProtocolError(f"kind {frame.kind} is no part of a reply")
        self._wake()
        return self._ended

    def fail(self, error: Exception) -> None:
        if not self._ended:
            self._error, self._ended = error, True
            self._wake()

    def late(self) -> bool:
        """The reader hears of it at once. What was used is told by the cell at the end of its step."""
        if self._overdue:
            self.fail(answers.late(answers.Unheard))
            return True
        if not self._cancelled:
            self._late = answers.late(answers.Unheard)
            self._wake()
        self._overdue = self._cancelled = True
        self.deadline += LAST_WORDS_SECONDS
        return False

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

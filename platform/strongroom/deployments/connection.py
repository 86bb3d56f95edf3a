"""One connection to one cell: many requests in flight on it, answers in any order, each deadline kept.

Who waits for an answer is replies.py's; what its frames mean, answers.py's; which cell serves what, targets.py's and
client.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import orjson

from inference.interface import Interface
from inference.language.requests import Generate
from inference.protocol import (
    CANCEL,
    COUNT,
    DESCRIBE,
    EMBED,
    GENERATE,
    INFER,
    AnswerReader,
    Array,
    Buffer,
    FrameReader,
    Header,
    ProtocolError,
    datatype_of,
    encode,
    frame_head,
    pack_header,
    pack_tensors,
    raw_bytes,
)
from strongroom.deployments.answers import Embedded
from strongroom.deployments.replies import WINDOW_TOKENS, Answer, EngineLost, One, Reply, Waiter
from strongroom.errors import LimitReached, TooLarge, Unavailable

SWEEP_SECONDS = 0.05
GRACE_SECONDS = 0.05  # the cell's own word on a deadline comes first where it can
SMALL_BYTES = 64 << 10
MAX_UNSENT_BYTES = 64 << 20
KEPT_HEADERS = 4096


class CellConnection(asyncio.Protocol):
    """One connection to one cell. Requests of one turn of the loop go in one write."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: Any = None
        self._reader, self._answers = FrameReader(), AnswerReader()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Waiter] = {}
        self._headers: dict[tuple[object, ...], Header] = {}
        self._out: list[Buffer] = []
        self._unsent = 0
        self._paused = self._sweeping = False
        self.lost = False

    # --- asking ---

    def infer(
        self,
        deployment: str,
        version: str,
        inputs: Mapping[str, Array] | None = None,
        *,
        raw: Buffer | None = None,
        content_type: str | None = None,
        outputs: Sequence[str] | None = None,
        deadline_ms: int = 30_000,
        priority: int = 0,
        principal: int = 0,
    ) -> asyncio.Future[Answer]:
        """The answer, or the error at the latest when the deadline passes. EngineLost and LimitReached at once."""
        wanted = None if outputs is None else tuple(outputs)
        what = (deployment, version, wanted, priority, principal)
        if inputs is None:
            return self._ask(INFER, self._raw_header(what, content_type or ""), [raw or b""], deadline_ms)
        if len(inputs) == 1:
            header, body = self._one_tensor(what, inputs)
        else:
            header, body = _with_tensors(what, inputs)
        return self._ask(INFER, header, body, deadline_ms)

    def generate(
        self,
        deployment: str,
        version: str,
        generate: Generate,
        *,
        stream: bool,
        scope: str = "",
        deadline_ms: int = 600_000,
        principal: int = 0,
    ) -> Reply:
        """What the model says, as it comes. EngineLost and LimitReached at once."""
        fields = {"model": deployment, "version": version, "principal": principal, "scope": scope}
        fields |= {"stream": True, "window": WINDOW_TOKENS} if stream else {}
        body = generate.to_json()
        number = self._number(len(body))
        reply = Reply(self.send, number, monotonic() + deadline_ms / 1000 + GRACE_SECONDS, generate.n, windowed=stream)
        self._send(GENERATE, number, pack_header(fields), [body], deadline_ms, reply)
        return reply

    def count(
        self, deployment: str, version: str, generate: Generate, *, deadline_ms: int = 30_000, principal: int = 0
    ) -> asyncio.Future[int]:
        """How many tokens the prompt has."""
        header = pack_header({"model": deployment, "version": version, "principal": principal})
        return self._ask(COUNT, header, [generate.to_json()], deadline_ms)

    def embed(
        self, deployment: str, version: str, texts: Sequence[str], *, deadline_ms: int = 30_000, principal: int = 0
    ) -> asyncio.Future[Embedded]:
        """A vector for each text."""
        header = pack_header({"model": deployment, "version": version, "principal": principal})
        return self._ask(EMBED, header, [orjson.dumps(texts)], deadline_ms)

    def describe(self, deployment: str, version: str, *, deadline_ms: int = 5_000) -> asyncio.Future[Interface]:
        """What the model takes and gives."""
        return self._ask(DESCRIBE, pack_header({"model": deployment, "version": version}), [], deadline_ms)

    async def prove(self) -> None:
        """Returns once the cell has answered anything: a dying one still takes connections for a moment."""
        with contextlib.suppress(Unavailable):
            try:
                await self.describe("", "")
            except EngineLost:
                raise OSError("the cell ended") from None

    def send(self, kind: int, number: int, fields: Mapping[str, Any]) -> None:
        """A frame that has no answer of its own."""
        if not self.lost:
            self._write((encode(kind, number, fields),))

    def _ask(self, kind: int, header: Header, body: list[Buffer], deadline_ms: int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        number = self._number(sum([len(part) for part in body]))
        one = One(future, monotonic() + deadline_ms / 1000 + GRACE_SECONDS, self._answers)
        self._send(kind, number, header, body, deadline_ms, one)
        return future

    def _number(self, size: int) -> int:
        """Of a request with so large a body, where the cell takes one."""
        if self.lost:
            raise EngineLost("the cell ended")
        if self._paused and self._unsent + size > MAX_UNSENT_BYTES:
            raise LimitReached("the engine takes no more requests just now", code="queue_full")
        return next(self._numbers)

    def _send(
        self, kind: int, number: int, header: Header, body: list[Buffer], deadline_ms: int, waiter: Waiter
    ) -> None:
        try:
            head = frame_head(kind, number, max(1, deadline_ms), header, sum([len(part) for part in body]))
        except ProtocolError as error:
            raise TooLarge(str(error)) from None
        self._waiting[number] = waiter
        self._write((*head, *body))
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _one_tensor(self, what: tuple[object, ...], inputs: Mapping[str, Array]) -> tuple[Header, list[Buffer]]:
        """The usual request: its header was packed before (0.5 µs instead of 6)."""
        ((name, array),) = inputs.items()
        datatype = datatype_of(array)
        if datatype == "BYTES":
            return _with_tensors(what, inputs)
        key = (*what, name, datatype, array.shape)
        header = self._headers.get(key)
        if header is None:
            header, body = _with_tensors(what, inputs)
            self._keep(key, header)
            return header, body
        return header, [raw_bytes(array, datatype)]

    def _raw_header(self, what: tuple[object, ...], content_type: str) -> Header:
        key = (*what, content_type)
        header = self._headers.get(key)
        if header is None:
            header = pack_header({**_fields(what), "content_type": content_type})
            self._keep(key, header)
        return header

    def _keep(self, key: tuple[object, ...], header: Header) -> None:
        if len(self._headers) >= KEPT_HEADERS:
            self._headers.clear()
        self._headers[key] = header

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            waiter.fail(EngineLost("the cell ended before it answered"))

    def close(self) -> None:
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                waiter = self._waiting.get(frame.request)
                if waiter is not None and waiter.took(frame):
                    del self._waiting[frame.request]
        except ProtocolError:
            self.close()

    def _write(self, parts: Sequence[Buffer]) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += parts
        if self._paused:
            self._unsent += sum([len(part) for part in parts])

    def _flush(self) -> None:
        """All of this turn's frames in one write; a large part by itself, uncopied."""
        out, self._out = self._out, []
        if self.lost:
            return
        if not self._paused:
            self._unsent = 0
        small: list[Buffer] = []
        for part in out:
            if len(part) < SMALL_BYTES:
                small.append(part)
                continue
            self._transport.write(b"".join(small))
            self._transport.write(part)
            small = []
        if small:
            self._transport.write(b"".join(small))

    def _sweep(self) -> None:
        """Gives up what is late, and tells the cell; callers that went away are late as well."""
        now = monotonic()
        for number, waiter in list(self._waiting.items()):
            if waiter.gone or waiter.deadline < now:
                self._write((encode(CANCEL, number, {}),))
                if waiter.late():
                    del self._waiting[number]
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)


def _fields(what: tuple[object, ...]) -> dict[str, Any]:
    deployment, version, wanted, priority, principal = what
    fields: dict[str, Any] = {"model": deployment, "version": version}
    fields |= {"outputs": list(wanted)} if isinstance(wanted, tuple) else {}
    return fields | {"priority": priority, "principal": principal}


def _with_tensors(what: tuple[object, ...], inputs: Mapping[str, Array]) -> tuple[Header, list[Buffer]]:
    described, body = pack_tensors(inputs)
    return pack_header({**_fields(what), "inputs": described}), body

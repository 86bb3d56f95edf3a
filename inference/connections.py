"""A cell's two kinds of connection: an edge's, which infers, and the agent's, which loads.

Both read frames and hand them on; what they may ask is decided here by the kind of connection, what it means by
cell.py and the scheduler. Bytes that are no frame end the connection. Everything runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from inference.errors import InferenceError, InputRefused, LoadFailed, ProtocolError
from inference.loading import KEY_BYTES, BaseOrder, LoadOrder, load
from inference.memory import resident_bytes
from inference.protocol import (
    ANSWER,
    CANCEL,
    COUNT,
    DESCRIBE,
    EMBED,
    ERROR,
    GENERATE,
    GIVE,
    HEAD,
    INFER,
    LOAD,
    MAX_FRAME_BYTES,
    STATS,
    UNLOAD,
    WINDOW,
    Buffer,
    Frame,
    FrameReader,
    frame_parts,
)
from inference.requests import Request

if TYPE_CHECKING:
    from inference.cell import Cell, Loaded
    from inference.language.serving import Generation

SMALL_BYTES: Final = 64 << 10


class Connection(asyncio.Protocol):
    """One connection of an edge (or of a worker's prediction job). Answers of one turn of the loop go in one write."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._reader = FrameReader()
        self._transport: Any = None
        self._out: list[Buffer] = []
        self.waiting: dict[int, Request] = {}
        self.generating: dict[int, Generation] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        for request in list(self.waiting.values()):
            self._cell.scheduler.drop(request)
        for generation in list(self.generating.values()):
            generation.cancel(silently=True)

    def pause_writing(self) -> None:
        """The other side reads too slowly: nothing more is taken from it until it does."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            now = time.monotonic()
            for frame in self._reader.feed(data):
                self._take(frame, now)
        except ProtocolError:
            self._transport.abort()

    def _take(self, frame: Frame, now: float) -> None:
        kind, number = frame.kind, frame.request
        try:
            if kind == INFER:
                self._check_new(number)
                plan = self._cell.plan(frame)
                deadline = now + frame.deadline_ms / 1000 if frame.deadline_ms else math.inf
                self._cell.scheduler.put(Request(self, number, plan, frame.body, now, deadline))
            elif kind == GENERATE:
                self._check_new(number)
                fields = frame.fields()
                self._cell.language_model(fields).generate(self, frame, fields, now)
            elif kind == EMBED:
                deadline = now + frame.deadline_ms / 1000 if frame.deadline_ms else math.inf
                fields = frame.fields()
                self._cell.encoding(fields).put(self, number, bytes(frame.body), deadline, fields.get("principal"))
            elif kind == WINDOW:
                self._widen(frame)
            elif kind == CANCEL:
                self._cancel(number)
            elif kind == COUNT:
                fields = frame.fields()
                self._cell.language_model(fields).count(self, frame, fields)
            elif kind == DESCRIBE:
                self._write(describe(self._cell.model(frame.fields()), number))
            else:
                raise ProtocolError(f"kind {kind} is not for this connection")
        except InferenceError as error:
            if kind == INFER:
                self._cell.scheduler.errors += 1
            self.refuse(number, error)

    def _check_new(self, number: int) -> None:
        if number in self.waiting or number in self.generating:
            raise ProtocolError(f"request {number} is in flight already")

    def _cancel(self, number: int) -> None:
        if (request := self.waiting.get(number)) is not None:
            self._cell.scheduler.drop(request)
        elif (generation := self.generating.get(number)) is not None:
            generation.cancel()

    def _widen(self, frame: Frame) -> None:
        tokens = frame.fields().get("tokens")
        if type(tokens) is not int or not 0 < tokens < 1 << 31:
            raise ProtocolError("a window without its tokens")
        if (generation := self.generating.get(frame.request)) is not None:
            generation.model.widen(generation, tokens)

    def answer(self, request: Request, parts: tuple[Buffer, ...]) -> None:
        self._write(parts)

    def send(self, parts: list[Buffer]) -> None:
        self._write(parts)

    def refuse(self, number: int, error: InferenceError) -> None:
        self._write(error_parts(number, error))

    def _write(self, parts: Sequence[Buffer]) -> None:
        if not self._out:
            self._cell.loop.call_soon(self._flush)
        self._out += parts

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            write_parts(self._transport, out)


class AgentConnection:
    """The agent's end: frames with descriptors. Rarely used, so it reads the socket itself, whenever it is readable;
    what it reads into is wiped, since keys pass through it."""

    def __init__(self, cell: Cell, connection: socket.socket, ended: Callable[[], None]) -> None:
        self._cell, self._socket, self._ended = cell, connection, ended
        self._buffer = bytearray(SMALL_BYTES)
        self._pending = bytearray()
        self._descriptors: list[int] = []
        connection.setblocking(False)
        cell.loop.add_reader(connection.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            count, ancillary, _, _ = self._socket.recvmsg_into([self._buffer], socket.CMSG_SPACE(16 * 4))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count, ancillary = 0, []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._descriptors += memoryview(data).cast("i").tolist()
        if not count:
            self._ended()
            return
        self._pending += memoryview(self._buffer)[:count]
        self._buffer[:count] = bytes(count)
        try:
            self._frames()
        except ProtocolError:
            self._ended()

    def _frames(self) -> None:
        """One frame after the other; the reader copies nothing that it does not give back to be wiped."""
        while len(self._pending) >= 4:
            length = int.from_bytes(self._pending[:4], "little")
            if not HEAD.size <= length <= MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes")
            if len(self._pending) < length:
                return
            whole = self._pending[:length]
            self._pending[:length] = bytes(length)
            del self._pending[:length]
            self._take(read_whole(whole), whole)

    def _take(self, frame: Frame, whole: bytearray) -> None:
        number = frame.request
        try:
            if frame.kind == LOAD:
                self._load(frame, whole)
                return
            if frame.kind == GIVE:
                self._give(frame, whole)
                return
            if frame.kind == UNLOAD:
                self._cell.unload(frame.fields(), lambda: self.send(frame_parts(ANSWER, number, {"unloaded": True})))
            elif frame.kind == STATS:
                self.send(frame_parts(STATS, number, self._cell.stats()))
            elif frame.kind == DESCRIBE:
                self.send(describe(self._cell.model(frame.fields()), number))
            else:
                raise ProtocolError(f"kind {frame.kind} is not for the agent")
        except InferenceError as error:
            self.send(error_parts(number, error))

    def _load(self, frame: Frame, whole: bytearray) -> None:
        descriptors, self._descriptors = self._descriptors, []
        try:
            order = LoadOrder.read(frame)
            if len(descriptors) != (1 if order.base is None else 2):
                raise ProtocolError("a load without its descriptors")
        except BaseException:
            close(descriptors)
            raise
        finally:
            frame.body.release()
            whole[:] = bytes(len(whole))
        if self._cell.tenant not in (None, order.for_tenant):
            close(descriptors)
            order.forget()
            raise LoadFailed("this cell belongs to another tenant")
        self._cell.tenant = order.for_tenant
        task = self._cell.loop.run_in_executor(None, load, order, descriptors, self._cell.place)
        task.add_done_callback(lambda done: self._loaded(frame.request, order, done))

    def _give(self, frame: Frame, whole: bytearray) -> None:
        """Decrypts weights for other cells to map; a cell that gives loads nothing, and ends after it."""
        descriptors, self._descriptors = self._descriptors, []
        try:
            from inference.language.loading import decrypted

            order = BaseOrder.read(frame.fields() | {"version": ""}, bytes(frame.body[:KEY_BYTES]))
            if len(descriptors) != 1:
                raise ProtocolError("a give without its descriptor")
            given = decrypted(order, descriptors[0])
        except ImportError:
            raise LoadFailed("this node has no extra `language`: make language") from None
        except (KeyError, ValueError, TypeError) as error:
            raise ProtocolError(f"a give frame without its fields ({type(error).__name__})") from None
        finally:
            frame.body.release()
            whole[:] = bytes(len(whole))
            close(descriptors)
        try:
            parts = b"".join(frame_parts(ANSWER, frame.request, {"given": True}))
            socket.send_fds(self._socket, [parts], [given])
        except OSError:
            self._ended()
        finally:
            os.close(given)

    def _loaded(self, number: int, order: LoadOrder, done: asyncio.Future[Any]) -> None:
        failure = done.exception()
        if isinstance(failure, InferenceError):
            self.send(error_parts(number, failure))
        elif failure is not None:
            self.send(error_parts(number, LoadFailed(f"the model was not loaded ({type(failure).__name__})")))
        else:
            model, seconds = done.result()
            self._cell.adopt(model)
            fields = {"loaded": True, "seconds": seconds, "resident_bytes": resident_bytes()}
            self.send(frame_parts(ANSWER, number, fields))

    def send(self, parts: Sequence[Buffer]) -> None:
        """Small and rare; an agent that does not read for a whole socket buffer is an agent that is gone."""
        try:
            self._socket.send(b"".join(parts))
        except OSError:
            self._ended()


def close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def read_whole(whole: bytearray) -> Frame:
    frames = FrameReader().feed(cast(bytes, whole))
    if len(frames) != 1:
        raise ProtocolError("not one whole frame")
    return frames[0]


def describe(model: Loaded, number: int) -> list[Buffer]:
    fields = {"model": model.name, "version": model.version, "max_batch": model.max_batch}
    return frame_parts(DESCRIBE, number, fields, [orjson.dumps(model.interface.to_json())])


def error_parts(number: int, error: InferenceError) -> list[Buffer]:
    fields: dict[str, Any] = {"code": error.code, "message": error.message[:2000], "tensor": error.tensor}
    if isinstance(error, InputRefused):
        fields["problems"] = [
            [problem.path[:200], problem.code, problem.message[:500], (problem.hint or "")[:500] or None]
            for problem in error.problems[:20]
        ]
    return frame_parts(ERROR, number, fields)


def write_parts(transport: Any, parts: list[Buffer]) -> None:
    """Small buffers joined into one write, a large one by itself, uncopied."""
    if len(parts) == 2 or sum([len(part) for part in parts]) <= SMALL_BYTES:
        transport.write(b"".join(parts))
        return
    small: list[Buffer] = []
    for part in parts:
        if len(part) < SMALL_BYTES:
            small.append(part)
            continue
        if small:
            transport.write(b"".join(small))
            small = []
        transport.write(part)
    if small:
        transport.write(b"".join(small))

"""A cell: the process that holds one tenant's decrypted models on one device and answers for them. Dies alone.

Forked by the zygote while it has one thread, it enters the sandbox first; the event loop, the compute thread and the
first session are made inside. The agent's connection is the first one, an inherited socket: loads, unloads and stats
are taken on it alone, and its end is the cell's end. All others come from the listening socket: infer, describe,
cancel. It knows no database, no user, no deployment beyond a name; the first load pins its tenant.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import math
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import sandbox
from inference.batching import Loop, Model, Plan, Request, Scheduler, plan_infer
from inference.errors import InferenceError, InputRefused, LoadFailed, ModelUnknown, ProtocolError
from inference.loading import LoadOrder, load
from inference.protocol import (
    ANSWER,
    CANCEL,
    DESCRIBE,
    ERROR,
    HEAD,
    INFER,
    LOAD,
    MAX_FRAME_BYTES,
    STATS,
    UNLOAD,
    Buffer,
    Frame,
    FrameReader,
    check_extent,
    frame_parts,
    tensor_specs,
)

try:
    import uvloop  # 1.3 times as many requests as asyncio's own loop
except ImportError:
    uvloop = None  # type: ignore[assignment]  # None is its absence

KEPT_PLANS: Final = 1024
SMALL_BYTES: Final = 64 << 10
MALLOC_TRIM_PAD: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a cell runs: what the zygote was asked for."""

    profile: str
    memory_bytes: int
    threads: int
    mode: sandbox.Mode = "auto"
    parent: int | None = None


class Cell:
    """The models, the scheduler and who may ask what. Everything runs on the event loop's thread but computing
    (Scheduler's worker) and loading (a thread of its own per load, so that what is served goes on being served)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self.loop, self.threads = loop, threads
        self.scheduler = Scheduler(cast(Loop, loop))
        self.models: dict[tuple[str, str], Model] = {}
        self.tenant: str | None = None
        self.started = time.monotonic()
        self._plans: dict[bytes, Plan] = {}

    def plan(self, frame: Frame) -> Plan:
        """What the frame asks for; the header is read and checked the first time it is seen (0.1 µs instead of 15)."""
        plan = self._plans.get(frame.header)
        if plan is None:
            plan = self._new_plan(frame)
        if plan.body_bytes != len(frame.body) and plan.content_type is None:
            raise ProtocolError(f"tensors of {plan.body_bytes} bytes in a body of {len(frame.body)}")
        return plan

    def _new_plan(self, frame: Frame) -> Plan:
        fields = frame.fields()
        specs = tensor_specs(fields.get("inputs", []))
        if "content_type" not in fields:
            check_extent(specs, len(frame.body))
        plan = plan_infer(self.model(fields), fields, specs, len(frame.body))
        if len(self._plans) >= KEPT_PLANS:
            self._plans.clear()
        self._plans[frame.header] = plan
        return plan

    def model(self, fields: dict[str, Any]) -> Model:
        name, version = str(fields.get("model")), str(fields.get("version"))
        model = self.models.get((name, version))
        if model is None:
            raise ModelUnknown(f"'{name}' version {version} is not loaded here")
        return model

    def adopt(self, model: Model) -> None:
        """A loaded model takes its place; one of the same name and version is served to its end and freed."""
        old = self.models.get((model.name, model.version))
        self.models[(model.name, model.version)] = model
        self._plans.clear()
        if old is not None:
            self.scheduler.retire(old, _give_memory_back)

    def unload(self, fields: dict[str, Any], freed: Callable[[], None]) -> None:
        model = self.model(fields)
        del self.models[(model.name, model.version)]
        self._plans.clear()

        def after() -> None:
            _give_memory_back()
            freed()

        self.scheduler.retire(model, after)

    def stats(self) -> dict[str, Any]:
        scheduler = self.scheduler
        return {
            "seconds": time.monotonic() - self.started,
            "requests": scheduler.requests,
            "errors": scheduler.errors,
            "batches": scheduler.batches,
            "items": scheduler.items,
            "waiting": scheduler.count,
            "resident_bytes": _resident_bytes(),
            "models": [
                {
                    "model": model.name,
                    "version": model.version,
                    "requests": model.requests,
                    "waiting": model.waiting.count,
                }
                for model in self.models.values()
            ],
        }


class Connection(asyncio.Protocol):
    """One connection of an edge (or of a worker's prediction job). Answers of one turn of the loop go in one write."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._reader = FrameReader()
        self._transport: Any = None
        self._out: list[Buffer] = []
        self.waiting: dict[int, Request] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        for request in list(self.waiting.values()):
            self._cell.scheduler.drop(request)

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
                if number in self.waiting:
                    raise ProtocolError(f"request {number} is in flight already")
                plan = self._cell.plan(frame)
                deadline = now + frame.deadline_ms / 1000 if frame.deadline_ms else math.inf
                self._cell.scheduler.put(Request(self, number, plan, frame.body, now, deadline))
            elif kind == CANCEL:
                request = self.waiting.get(number)
                if request is not None:
                    self._cell.scheduler.drop(request)
            elif kind == DESCRIBE:
                self._write(describe(self._cell.model(frame.fields()), number))
            else:
                raise ProtocolError(f"kind {kind} is not for this connection")
        except InferenceError as error:
            if kind == INFER:
                self._cell.scheduler.errors += 1
            self.refuse(number, error)

    def answer(self, request: Request, parts: tuple[Buffer, ...]) -> None:
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
        if not self._descriptors:
            raise ProtocolError("a load without its descriptor")
        descriptor = self._descriptors.pop(0)
        try:
            order = LoadOrder.read(frame)
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            frame.body.release()
            whole[:] = bytes(len(whole))
        if self._cell.tenant not in (None, order.tenant):
            os.close(descriptor)
            order.forget()
            raise LoadFailed("this cell belongs to another tenant")
        self._cell.tenant = order.tenant
        task = self._cell.loop.run_in_executor(None, load, order, descriptor, self._cell.threads)
        task.add_done_callback(lambda done: self._loaded(frame.request, order, done))

    def _loaded(self, number: int, order: LoadOrder, done: asyncio.Future[Any]) -> None:
        failure = done.exception()
        if isinstance(failure, InferenceError):
            self.send(error_parts(number, failure))
        elif failure is not None:
            self.send(error_parts(number, LoadFailed(f"the model was not loaded ({type(failure).__name__})")))
        else:
            engine, seconds = done.result()
            self._cell.adopt(Model(order.deployment, order.version, engine, order.max_batch))
            fields = {"loaded": True, "seconds": seconds, "resident_bytes": _resident_bytes()}
            self.send(frame_parts(ANSWER, number, fields))

    def send(self, parts: Sequence[Buffer]) -> None:
        """Small and rare; an agent that does not read for a whole socket buffer is an agent that is gone."""
        try:
            self._socket.send(b"".join(parts))
        except OSError:
            self._ended()


def read_whole(whole: bytearray) -> Frame:
    frames = FrameReader().feed(cast(bytes, whole))
    if len(frames) != 1:
        raise ProtocolError("not one whole frame")
    return frames[0]


def describe(model: Model, number: int) -> list[Buffer]:
    import orjson  # rare: once per deployment and web process

    fields = {"model": model.name, "version": model.version, "max_batch": model.max_batch}
    return frame_parts(DESCRIBE, number, fields, [orjson.dumps(model.signature.to_json())])


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


def run(listening: socket.socket, agent: socket.socket, conditions: Conditions) -> None:
    """The forked child's whole life; returns when the agent has gone."""
    if uvloop is None:
        loop = asyncio.new_event_loop()  # its own socket pair is refused inside
        _enter(conditions)
        loop.run_until_complete(_live(loop, listening, agent, conditions.threads))
        return
    _enter(conditions)
    failures: list[BaseException] = []
    arguments = (listening, agent, conditions.threads, failures)
    serving = threading.Thread(target=_serve_in_thread, args=arguments, name="loop")
    serving.start()
    serving.join()
    for failure in failures:
        raise failure


def _enter(conditions: Conditions) -> None:
    sandbox.enter(
        conditions.profile, memory_bytes=conditions.memory_bytes, mode=conditions.mode, parent=conditions.parent
    )


def _serve_in_thread(
    listening: socket.socket, agent: socket.socket, threads: int, failures: list[BaseException]
) -> None:
    """uvloop is made inside the sandbox, where libuv finds no io_uring and takes epoll (a ring made before would be
    refused later), and not on the main thread, where it would want a socket pair for signals."""
    try:
        loop = uvloop.new_event_loop()
        loop.run_until_complete(_live(loop, listening, agent, threads))
    except BaseException as failure:  # told on the main thread, without its text
        failures.append(failure)


async def _live(loop: asyncio.AbstractEventLoop, listening: socket.socket, agent: socket.socket, threads: int) -> None:
    loop.set_exception_handler(lambda _, context: tell_failure(context.get("exception")))
    cell = Cell(loop, threads)
    ended = asyncio.Event()
    AgentConnection(cell, agent, ended.set)
    server = await loop.create_unix_server(lambda: Connection(cell), sock=listening)  # uvloop's ends with its object
    await ended.wait()
    server.close()


def tell_failure(failure: object) -> None:
    """A defect's class and place on stderr; its text could carry content."""
    place = failure.__traceback__ if isinstance(failure, BaseException) else None
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place else "?"
    os.write(2, f"cell {os.getpid()}: {type(failure).__name__} at {where}\n".encode())


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _give_memory_back() -> None:
    """A freed model's pages return to the system, not only to the allocator."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(MALLOC_TRIM_PAD)

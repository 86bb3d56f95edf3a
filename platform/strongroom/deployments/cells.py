"""The zygote and the cells that it forks, seen from the agent: start, load, unload, ask, notice the end.

Frames and packets are those of docs/formats/processes.md. Knows no database and no policy: which cells there should be
is keeper.py's. What a cell says is read as strictly as a stranger's word: a hostile model may have taken it over.
Everything runs on the agent's event loop, which is the process's main thread: the zygote is killed by the kernel when
the thread that started it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import sandbox
from inference.protocol import ERROR, GIVE, LOAD, STATS, UNLOAD, Frame, FrameReader, ProtocolError, encode
from strongroom.deployments.rows import Order, Wanted

PACKET_BYTES = 4096
FORK_SECONDS = 10.0
READY_SECONDS = 60.0
LOAD_SECONDS = 600.0
ANSWER_SECONDS = 60.0
UNLOAD_SECONDS = 1200.0  # longer than the longest answer
# libgomp's threads wait a little for the next step before they sleep: where they spun for longer (its default) and
# another process had the core, a language model made 5 tokens a second instead of 200.
ZYGOTE_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
KEY_BYTES = 32
BACKLOG = 512
CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
MESSAGE_CHARACTERS = 300

logger = logging.getLogger(__name__)


class CellLost(Exception):
    """The cell (or the zygote) ended."""


class LoadRefused(Exception):
    """The cell answered with an error; `code` is the cell's where it is one, and so is the text, in one short line."""

    def __init__(self, code: object, message: object) -> None:
        super().__init__(ascii(message)[1:-1][:MESSAGE_CHARACTERS])
        self.code = code if isinstance(code, str) and CODE.fullmatch(code) else "load_failed"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What every cell of this node is started with."""

    memory_bytes: int
    threads: int
    mode: sandbox.Mode
    profile: str = "cell-cpu"
    language_threads: int = 1


class Zygote:
    """The process that forks. `start` is called before anything secret is read, and again when it was killed."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self._child: sandbox.Child | None = None
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._lock = asyncio.Lock()

    def start(self) -> None:
        """Blocks until it has imported everything, about 0.3 s. SandboxUnavailable under `require`."""
        self._child = sandbox.start(
            [sys.executable, "-m", "inference.zygote"],
            profile=self.conditions.profile,
            memory_bytes=self.conditions.memory_bytes,
            environment=ZYGOTE_ENVIRONMENT,
            mode=self.conditions.mode,
            errors=sys.stderr.fileno(),  # it and its cells write classes and places only
        )
        self._child.channel.settimeout(READY_SECONDS)
        if not self._child.channel.recv(PACKET_BYTES):
            self.end()
            raise CellLost("the zygote ended while it started")
        self._child.channel.setblocking(False)

    def end(self) -> None:
        """Kills it, and so every cell."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ValueError, RuntimeError):  # no loop runs, or none read from it
                asyncio.get_running_loop().remove_reader(child.channel.fileno())
            child.end()

    def watch(self) -> None:
        """Reads its packets from now on; needs the running loop."""
        if self._child is not None:
            self._replies = asyncio.Queue()
            asyncio.get_running_loop().add_reader(self._child.channel.fileno(), self._readable, self._child)

    def _readable(self, child: sandbox.Child) -> None:
        try:
            packet = child.channel.recv(PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._replies.put_nowait({"type": "lost"})
            if self._child is child:
                self.end()
            return
        document = json.loads(packet)
        if document["type"] == "ended":  # its end is seen on its own connection too; here is why
            if document["code"]:
                logger.warning("cell %d ended with %d", document["pid"], document["code"])
        else:
            self._replies.put_nowait(document)

    def kill(self, pid: int) -> None:
        """Asks for a cell's end. Only its parent can be sure that the number is still that cell's."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                self._child.channel.send(json.dumps({"type": "kill", "pid": pid}).encode())

    async def fork(self, listening: socket.socket, connection: socket.socket) -> int:
        """The pid of a new cell that has these two sockets; CellLost where there is no zygote just now."""
        async with self._lock:
            if self._child is None:
                self.start()
                self.watch()
            order = {"type": "fork", **asdict(self.conditions)}
            channel = cast(sandbox.Child, self._child).channel
            try:
                socket.send_fds(channel, [json.dumps(order).encode()], [listening.fileno(), connection.fileno()])
                async with asyncio.timeout(FORK_SECONDS):
                    reply = await self._replies.get()
            except (OSError, TimeoutError):
                self.end()
                raise CellLost("the zygote does not answer") from None
            if reply["type"] != "forked":
                raise CellLost(f"no cell was forked: {reply.get('message', 'the zygote ended')}")
            return int(reply["pid"])


class Cell:
    """One running cell and the agent's connection to it, whose end is the cell's end."""

    def __init__(
        self, tenant: UUID, device: str, path: Path, pid: int, connection: socket.socket, zygote: Zygote
    ) -> None:
        self.tenant, self.device, self.path, self.pid = tenant, device, path, pid
        self._zygote = zygote
        self.ended = asyncio.Event()
        self.on_end: Callable[[], None] = lambda: None
        self._socket = connection
        self._given: int | None = None
        self._reader = FrameReader()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._readable)

    @classmethod
    async def start(cls, zygote: Zygote, tenant: UUID, device: str, path: Path) -> Cell:
        """Forked and listening at `path`; nothing is loaded yet."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, socket.socket(socket.AF_UNIX) as listening:
                path.unlink(missing_ok=True)
                listening.bind(str(path))
                os.chmod(path, 0o600)
                listening.listen(BACKLOG)
                pid = await zygote.fork(listening, theirs)
        except BaseException:
            ours.close()
            path.unlink(missing_ok=True)
            raise
        ours.setblocking(False)
        return cls(tenant, device, path, pid, ours, zygote)

    async def load(self, wanted: Wanted, order: Order) -> int | None:
        """Loaded and warm: the cell's resident bytes. LoadRefused, CellLost. The order's key is wiped either way."""
        fields = {
            "deployment": wanted.name,
            "version": str(wanted.version),
            "for_tenant": str(self.tenant),
            **_place(order),
            "batching": {"max_batch": wanted.max_batch, "context_tokens": wanted.context_tokens},
            "share": wanted.share and (order.is_public or (order.base is not None and order.base.is_public)),
        }
        descriptors, base_key = [order.descriptor], bytearray(KEY_BYTES)
        if (base := order.base) is not None:
            descriptors.append(base.descriptor)
            base_key = base.data_key
            fields["base"] = {"version": str(base.version), **_place(base)}
        try:
            frame = bytearray(encode(LOAD, 0, fields, [order.data_key, base_key, order.interface]))
            try:
                return _resident_bytes(_fields(await self._ask(frame, LOAD_SECONDS, descriptors)))
            finally:
                frame[:] = bytes(len(frame))
        finally:
            order.forget()

    async def give(self, order: Order) -> int:
        """A descriptor of the plaintext, sealed in memory, for other cells. LoadRefused, CellLost. The key is wiped."""
        try:
            frame = bytearray(encode(GIVE, 0, _place(order), [order.data_key]))
            try:
                await self._ask(frame, LOAD_SECONDS, [order.descriptor])
            finally:
                frame[:] = bytes(len(frame))
        finally:
            order.forget()
        if self._given is None:
            raise CellLost("the cell gave nothing")
        given, self._given = self._given, None
        return given

    async def unload(self, deployment: str, version: str) -> None:
        """Freed once what it had taken in is answered."""
        await self._ask(bytearray(encode(UNLOAD, 0, {"model": deployment, "version": version})), UNLOAD_SECONDS)

    async def stats(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Its word for it. LoadRefused, CellLost."""
        return _fields(await self._ask(bytearray(encode(STATS, 0, {})), seconds))

    async def resident_bytes(self, seconds: float = ANSWER_SECONDS) -> int | None:
        return _resident_bytes(await self.stats(seconds))

    def end(self) -> None:
        """Closes the connection, at which the cell goes by itself; a hanging one is killed."""
        if not self.ended.is_set():
            self._lost()
            self._zygote.kill(self.pid)

    async def _ask(self, frame: bytearray, seconds: float, descriptors: Sequence[int] = ()) -> Frame:
        number = next(self._numbers)
        frame[8:16] = number.to_bytes(8, "little")
        future = self._waiting[number] = self._loop.create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._send(frame, descriptors)
                answer: Frame = await future
        except TimeoutError:
            raise CellLost("the cell does not answer") from None
        finally:
            self._waiting.pop(number, None)
        if answer.kind == ERROR:
            fields = _fields(answer)
            raise LoadRefused(fields.get("code"), str(fields.get("message")))
        return answer

    async def _send(self, frame: bytearray, descriptors: Sequence[int]) -> None:
        """Descriptors ride on the frame's first bytes; one frame at a time, so that they stay with their own."""
        async with self._writing:
            if self.ended.is_set():
                raise CellLost("the cell ended")
            try:
                sent = 0
                if descriptors:
                    sent = socket.send_fds(self._socket, [frame], list(descriptors))
                with memoryview(frame) as rest:
                    await self._loop.sock_sendall(self._socket, rest[sent:])
            except OSError:
                self._lost()
                raise CellLost("the cell ended") from None

    def _readable(self) -> None:
        try:
            data, given, _, _ = socket.recv_fds(self._socket, 1 << 16, 1)
        except BlockingIOError:
            return
        except OSError:
            data, given = b"", []
        for descriptor in given:
            if self._given is not None:
                os.close(self._given)
            self._given = descriptor
        try:
            frames = self._reader.feed(data)
        except ProtocolError:
            data, frames = b"", []
        for frame in frames:
            future = self._waiting.get(frame.request)
            if future is not None and not future.done():
                future.set_result(frame)
        if not data:
            self._lost()

    def _lost(self) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._given is not None:
            os.close(self._given)
            self._given = None
        self.path.unlink(missing_ok=True)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CellLost("the cell ended"))
        self.on_end()


def _place(order: Order) -> dict[str, Any]:
    """Where the weights lie, as a load frame tells it."""
    return {
        "tenant": str(order.tenant),
        "artefact": str(order.artefact),
        "header_tag": order.header_tag,
        "stored_bytes": order.stored_bytes,
        "plain": order.plain,
    }


def _fields(frame: Frame) -> dict[str, Any]:
    try:
        return frame.fields()
    except ProtocolError:
        raise CellLost("the cell says what nobody understands") from None


def _resident_bytes(fields: dict[str, Any]) -> int | None:
    """A number that a row can hold, or None."""
    found = fields.get("resident_bytes")
    return found if type(found) is int and 0 <= found < 1 << 63 else None

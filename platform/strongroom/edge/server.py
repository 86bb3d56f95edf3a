"""uvicorn as this project runs it: httptools and uvloop, time-outs on slow senders, a graceful stop with an end.

uvicorn has no time-out on heads and bodies; this protocol keeps a few numbers a connection, and one sweep a second
closes who sends too slowly. It knows sockets, bytes and answers, no routes and no tenants.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from strongroom.edge import http

HEAD_SECONDS = 15.0  # for a request's head, and for a fresh connection's first byte
STALL_SECONDS = 20.0  # a body must bring STALL_BYTES in each such span
STALL_BYTES = 16 * 1024
READ_SECONDS = 60.0  # for a caller to take what waits to be sent
IDLE_SECONDS = 75  # between requests of one connection
STOP_SECONDS = 20  # for requests in flight at the end
MAX_HEAD_BYTES = 1 << 20  # what may arrive before a head is complete: a read may bring up to 256 KiB of body with it
WHOLE_BYTES = 64 * 1024


class TimedProtocol(HttpToolsProtocol):
    """One connection. Everything runs on the event loop's thread.

    `waiting_since` is when the head or the present span of the body began, 0.0 while nothing is expected.
    """

    head_seconds = HEAD_SECONDS
    stall_seconds = STALL_SECONDS

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.waiting_since = self.loop.time()
        self.in_body = False
        self.head_bytes = 0
        self.span_bytes = 0
        self.paused_since = 0.0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.waiting_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if not self.in_body:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self.in_body = True
        self.head_bytes = self.span_bytes = 0
        super().on_headers_complete()
        self.scope["strongroom.whole"] = functools.partial(write_whole, self.cycle)  # type: ignore[typeddict-unknown-key]  # ours

    def on_body(self, body: bytes) -> None:
        self.span_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.in_body = False
        self.waiting_since = 0.0
        super().on_message_complete()

    def pause_writing(self) -> None:
        self.paused_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.paused_since = 0.0
        super().resume_writing()

    def sweep(self, now: float) -> None:
        """Closes the connection where its caller is too slow; our own back pressure is not held against it."""
        if self.paused_since and now - self.paused_since > READ_SECONDS:
            self.transport.abort()
            return
        if not self.waiting_since:
            return
        elapsed = now - self.waiting_since
        if not self.in_body:
            if elapsed > self.head_seconds:
                self.transport.abort()
        elif elapsed > self.stall_seconds:
            if self.span_bytes < STALL_BYTES and not self.flow.read_paused:
                self.transport.abort()
            self.waiting_since, self.span_bytes = now, 0


def write_whole(cycle: RequestResponseCycle, answer: http.Answer, request_id: str) -> bool:
    """A small answer in one piece and one system call, past uvicorn's general `send` (25 → 12 µs a request).

    False, and nothing done, where anything is out of the ordinary: then `send` does it.
    """
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive
        or len(answer.body) > WHOLE_BYTES
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    head = _heads.of(cycle.default_headers, answer.status, answer.media_type)
    body = answer.body
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(
        b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (head, len(body), request_id.encode(), body)
    )
    cycle.message_event.set()
    cycle.on_response()
    return True


class _Heads:
    """The part of an answer's head that is the same for a second: until uvicorn writes the next date."""

    def __init__(self) -> None:
        self._default: Sequence[tuple[bytes, bytes]] = ()
        self._known: dict[tuple[int, bytes], bytes] = {}

    def of(self, default: Sequence[tuple[bytes, bytes]], status: int, media_type: bytes) -> bytes:
        if default is not self._default:
            self._default, self._known = default, {}
        head = self._known.get((status, media_type))
        if head is None:
            headers = (*default, (b"content-type", media_type), http.UNCACHED)
            lines = [b"%b: %b\r\n" % header for header in headers]
            head = self._known[(status, media_type)] = STATUS_LINE[status] + b"".join(lines)
        return head


_heads = _Heads()


class Server(uvicorn.Server):
    """One web process's server; a sweep each second beside its own tick. `stopping` is called when a stop begins."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, TimedProtocol):
                    connection.sweep(now)
        return await super().on_tick(counter)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Without uvicorn's last step, which raises the stop signal once more: a stop in order exits with 0."""
        with self.capture_signals():
            await self._serve(sockets)
            self._captured_signals.clear()


def serve(application: Callable[..., Any], listener: socket.socket, stopping: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT; then requests in flight are answered and the socket is closed."""
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=TimedProtocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,  # who may be believed is decided in edge/principals.py and rest/requests.py
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    _tame_the_collector()
    Server(config, stopping).run(sockets=[listener])


def _tame_the_collector() -> None:
    """What is loaded by now lives as long as the process: a third of a prediction's time went into walking it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def listen(host: str, port: int, backlog: int = 2048) -> socket.socket:
    """The listening socket, inherited by every web process; OSError where the address is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host.strip("[]"), port))
    listener.listen(backlog)
    listener.set_inheritable(True)
    listener.setblocking(False)
    return listener

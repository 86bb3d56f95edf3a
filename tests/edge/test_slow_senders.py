"""Connections that send too slowly are closed; those that are slow for our sake, or done, are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from strongroom.edge import server

pytestmark = pytest.mark.slow

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"


class Quick(server.TimedProtocol):
    head_seconds = 0.4
    stall_seconds = 0.4


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body, or none of it for a while where the path is /late."""
    if scope["path"] == "/late":
        await asyncio.sleep(2.5)
    while (message := await receive()).get("more_body"):
        if message["type"] == "http.disconnect":
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listener = server.listen("127.0.0.1", 0)
    config = uvicorn.Config(application, loop="uvloop", http=Quick, ws="none", lifespan="off", log_config=None)
    running = server.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    running.should_exit = True
    thread.join()


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """Waits for the end, at most the connection's ten seconds."""
    try:
        return connection.recv(65536) == b""
    except ConnectionResetError:
        return True


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    with connected(port) as connection:
        assert is_closed(connection)


def test_half_a_head_is_closed(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(HEAD)
        assert is_closed(connection)


def test_a_body_that_stalls_is_closed(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(HEAD + b"\r\n" + b"x" * 1000)
        assert is_closed(connection)


def test_an_endless_head_is_closed(port: int) -> None:
    with connected(port) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * (2 << 20))
        assert is_closed(connection)


def test_a_body_that_we_are_slow_to_read_is_not_closed(port: int) -> None:
    with connected(port) as connection:
        size = 300_000
        connection.sendall(b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_idle_connection_between_requests_stays(port: int) -> None:
    with connected(port) as connection:
        for pause in (2.0, 0.0):
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            threading.Event().wait(pause)

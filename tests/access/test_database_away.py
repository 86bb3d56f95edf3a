"""The database goes away under a real web process: clear answers while it is gone, all well when it is back."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from strongroom.access import secrets
from tests.access.test_revocation import call
from tests.callers import until
from tests.nodes import Node

pytestmark = pytest.mark.slow


class Wire:
    """A TCP relay to PostgreSQL that can be cut and mended. Its threads end with their sockets."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._sockets: list[socket.socket] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_relay, args=(one, other), daemon=True).start()

    def cut(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def mend(self) -> None:
        self._listener = self._listen(self.port)


def _relay(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while piece := one.recv(65536):
            other.sendall(piece)
    with suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(node: Node) -> Iterator[Wire]:
    if node.mode == "embedded":
        pytest.skip("SQLite is a file: it does not go away")
    address = urlsplit(node.environment["STRONGROOM_DATABASE_URL"])
    wire = Wire(address.hostname or "", address.port or 0)
    yield wire
    wire.cut()


def test_a_lost_database_is_a_503_and_comes_back(node: Node, wire: Wire) -> None:
    owner = json.loads(node.manage("createtenant", "acme", "--owner", "owner@acme.test").stdout)["api_key"]
    for name in ("STRONGROOM_DATABASE_URL", "STRONGROOM_SYSTEM_DATABASE_URL"):
        port = urlsplit(node.environment[name]).port
        node.environment[name] = node.environment[name].replace(f":{port}/", f":{wire.port}/")
    node.start("web")
    paths = ("/api/v1/tenant", "/api/v1/predictions")  # Django's and the edge's
    assert [call(node, "GET", path, owner)[0] for path in paths] == [200, 200]

    wire.cut()
    for secret in (owner, secrets.new()):
        for path in paths:
            status, body = call(node, "GET", path, secret)
            assert (status, body["code"]) == (503, "database_unavailable"), (path, body)
    assert call(node, "GET", "/api/v1/tenant", "sr_malformed")[0] == 401

    wire.mend()
    assert until(lambda: [call(node, "GET", path, owner)[0] for path in paths] == [200, 200], 15)
    assert until(lambda: call(node, "GET", "/api/v1/tenant", secrets.new())[0] == 401, 15)

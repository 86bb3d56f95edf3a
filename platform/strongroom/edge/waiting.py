"""`Prefer: wait` on Django's routes: the answer is kept back until the row that it shows is done, or the time is over.

The edge's own routes wait by themselves and take from here what is the same: which row a document shows, and the
header that says so. How rows are watched is watch.py's.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from strongroom import ids
from strongroom.access.middleware import COUNTED
from strongroom.edge import http
from strongroom.edge.django import to_django
from strongroom.edge.watch import WATCHES, Row

KINDS = {"job": "job", "pred": "job", "ds": "dataset", "dep": "deployment"}
MAX_HELD_BYTES = 4 << 20
APPLIED = (b"preference-applied", b"wait")


def row_of(document: Any) -> Row | None:
    """The row that a native document shows, where it is one that can be waited for."""
    if not isinstance(document, dict) or not isinstance(given := document.get("id"), str) or "state" not in document:
        return None
    prefix = given.partition("_")[0]
    kind, id = KINDS.get(prefix), ids.parse(prefix, given)
    if kind is None or id is None:
        return None
    return Row(kind, id, document["version"]) if kind == "dataset" else Row(kind, id)


class Held:
    """An answer of Django kept back until it is whole, or let through once it is none that can be waited for."""

    def __init__(self, send: http.Send) -> None:
        self._send = send
        self.start: http.Message | None = None
        self.body = bytearray()
        self.through = False

    async def send(self, message: http.Message) -> None:
        if self.through:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self.start = message
            if message["status"] not in {200, 201, 202} or not _is_json(message):
                await self.release()
        else:
            self.body += message.get("body", b"")
            if len(self.body) > MAX_HELD_BYTES:
                await self.release(more_body=message.get("more_body", False))

    async def release(self, *, more_body: bool = True) -> None:
        """Sends what was kept back; what follows passes."""
        if self.start is None or self.through:
            return
        self.through = True
        await self._send(self.start)
        if self.body or not more_body:
            await self._send({"type": "http.response.body", "body": bytes(self.body), "more_body": more_body})

    def document(self) -> Any:
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


def _is_json(start: http.Message) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(http.JSON) for n, v in start.get("headers", ()))


async def hold(asked: http.Scope, receive: http.Receive, send: http.Send) -> None:
    """Lets Django answer, waits for the row that its answer shows, then answers with that row as it is by then."""
    seconds = http.Request(asked, receive).wait_seconds or 0
    first = Held(send)
    await to_django(asked, receive, first.send)
    if first.through or first.start is None:
        return
    row = row_of(first.document())
    if row is None:
        await first.release(more_body=False)
        return
    done = await WATCHES.until_done(row, seconds)
    fresh = await _read_again(asked, first)
    began = first.start["status"] == 202 and asked["method"] != "DELETE"  # what is over is not made
    await _answer_held(first, fresh, 201 if began and done else first.start["status"], send)


async def _read_again(asked: http.Scope, first: Held) -> bytes:
    """The resource through its own route, as the same caller; the first answer where that fails."""
    path = asked["path"] if asked["method"] in {"GET", "HEAD", "PATCH"} else _location(first)
    if path is None or first.start is None:
        return bytes(first.body)
    dropped = {b"content-length", b"content-type", b"transfer-encoding", b"idempotency-key", b"prefer", b"expect"}
    headers = [(name, value) for name, value in asked["headers"] if name not in dropped]
    inner = {**asked, "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    inner[COUNTED] = True
    again = Held(_nowhere)
    await to_django(inner, _empty_body(), again.send)
    return bytes(again.body if again.start is not None and again.start["status"] == 200 else first.body)


def _location(held: Held) -> str | None:
    headers = held.start.get("headers", ()) if held.start else ()
    return next((value.decode("latin-1") for name, value in headers if name.lower() == b"location"), None)


async def _nowhere(message: http.Message) -> None:
    """Where an inner answer goes that turned out to be no document."""


def _empty_body() -> http.Receive:
    given = False

    async def receive() -> http.Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()  # Django listens for the caller's going away until it has answered
        given = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def _answer_held(first: Held, body: bytes, status: int, send: http.Send) -> None:
    kept = [(n, v) for n, v in (first.start or {}).get("headers", ()) if n.lower() != b"content-length"]
    headers = [*kept, (b"content-length", b"%d" % len(body)), APPLIED]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

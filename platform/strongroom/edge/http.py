"""HTTP on the bare ASGI protocol: one request as read, one answer as sent, bounded bodies. No framework, no files.

Every body is bounded where it is read and lives in memory only. Knows nothing of tenants, models or routes; time-outs
on slow senders are the server's (edge/server.py), which sees the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson

from strongroom.errors import FieldError, Invalid, Malformed, StrongroomError, TooLarge, Unsupported
from strongroom.rest import problem, waiting
from strongroom.rest.requests import accepted_id

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

JSON = b"application/json"
UNCACHED = (b"cache-control", b"no-store")  # every answer is one tenant's
MAX_QUERY_FIELDS = 50
SMALL_BYTES = 64 * 1024
AGAIN_SECONDS = 1.0  # asyncio.wait_for loses a cancellation that comes with its result


class Disconnected(Exception):
    """The caller went away; nobody reads an answer."""


class Request:
    """One request: its head at once, its body when asked for. Belongs to one task."""

    __slots__ = ("began", "headers", "id", "method", "path", "receive", "scope", "whole")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.began = perf_counter()
        self.scope = scope
        self.receive = receive
        # Taken out (edge/server.py put it there): in the scope it would keep itself alive until the next collection.
        self.whole: Callable[[Answer, str], bool] | None = scope.pop("strongroom.whole", None)
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.id = accepted_id(given.decode("latin-1") if given else None)

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case; "" where there is none."""
        return self.header(b"content-type").partition(";")[0].strip().lower()

    @property
    def wait_seconds(self) -> int | None:
        """N of `Prefer: wait=N`, at most 60; None where the caller does not ask to wait."""
        return waiting.seconds(self.header(b"prefer"))

    def query(self, known: Sequence[str]) -> dict[str, str]:
        """The query's fields, each once and known; Invalid with every problem."""
        try:
            text = self.scope["query_string"].decode("latin-1")
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        except ValueError:
            raise Malformed(f"the query has over {MAX_QUERY_FIELDS} fields") from None
        problems = [_unknown_field(name, known) for name, _ in pairs if name not in known]
        names = [name for name, _ in pairs]
        problems += [
            FieldError(f"?{name}", "repeated", "is given more than once")
            for name in dict.fromkeys(names)
            if name in known and names.count(name) > 1
        ]
        if problems:
            raise Invalid.all(problems)
        return dict(pairs)

    async def body(self, limit: int) -> bytes:
        """The whole body; TooLarge as soon as it is known to be over `limit`, Disconnected when it breaks off."""
        self.check_length(limit)
        message = await self.receive()
        if message["type"] != "http.request":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            return await self._rest(body, limit)
        if len(body) > limit:
            raise too_large(limit)
        return body

    @property
    def is_large(self) -> bool:
        """Whether its body may be more than a read or two bring: told by its length, or by telling none."""
        length = self.headers.get(b"content-length")
        return b"transfer-encoding" in self.headers if length is None else int(length) > SMALL_BYTES

    async def _rest(self, body: bytes, limit: int) -> bytes:
        whole = bytearray(body)
        async for piece in self.pieces():
            whole += piece
            if len(whole) > limit:
                raise too_large(limit)
        return bytes(whole)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives (what is left of it); Disconnected when it breaks off."""
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise Disconnected
            if piece := message.get("body", b""):
                yield piece
            if not message.get("more_body"):
                return

    async def gone(self) -> None:
        """Ends when the caller goes away, after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def while_there(self, work: Awaitable[T]) -> T:
        """The work's result; Disconnected as soon as the caller goes away: then the work is cancelled, here."""
        task, cancelled = asyncio.current_task(), 0

        async def watch() -> None:
            nonlocal cancelled
            await self.gone()
            while task is not None:
                cancelled += task.cancel()
                await asyncio.sleep(AGAIN_SECONDS)

        watching = asyncio.create_task(watch(), name="the caller is there")
        try:
            return await work
        except asyncio.CancelledError:
            left = 1
            for _ in range(cancelled):
                left = 0 if task is None else task.uncancel()
            if left:  # somebody else cancelled, too
                raise
            raise Disconnected from None
        finally:
            watching.cancel()

    def check_length(self, limit: int) -> None:
        """TooLarge where Content-Length alone says so."""
        if (length := self.headers.get(b"content-length")) is not None and int(length) > limit:
            raise too_large(limit)


def parse(body: bytes) -> Any:
    """JSON, strictly; Malformed says where it breaks."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error}", hint="send UTF-8 JSON") from None


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is over the limit of {limit} bytes", hint=f"at most {limit} bytes")


def unsupported(given: str, accepted: Sequence[str]) -> Unsupported:
    said = f"the content type {given!r} is not supported here" if given else "a content type is needed"
    return Unsupported(f"{said}; accepted: {', '.join(accepted)}", hint=", ".join(accepted))


def forbidden_fields(document: dict[str, Any], known: Sequence[str]) -> list[FieldError]:
    """One problem per field that is not known, with the nearest name."""
    unknown = islice((name for name in document if name not in known), problem.MAX_PROBLEMS)
    return [
        FieldError(f"/{name}", "extra_forbidden", "is not a known field", problem.nearest(name, known))
        for name in unknown
    ]


def _unknown_field(name: str, known: Sequence[str]) -> FieldError:
    return FieldError(f"?{name}", "extra_forbidden", "is not a known field", problem.nearest(name, known))


class Answer:
    """What goes back: a status, a body in one piece, headers beside the usual ones."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = (), media_type: bytes = JSON
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.media_type = media_type

    @classmethod
    def of(cls, status: int, document: Any, headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
        return cls(status, orjson.dumps(document), headers)

    async def send(self, send: Send, request: Request) -> None:
        if request.whole is not None and not self.headers and request.whole(self, request.id):
            return
        headers = [
            (b"content-type", self.media_type),
            (b"content-length", b"%d" % len(self.body)),
            (b"x-request-id", request.id.encode()),
            UNCACHED,
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Stream(Answer):
    """An answer of many pieces, of unknown length or of one told in `headers`. Ends as soon as nobody reads any more:
    the generator of its pieces is cancelled where it waits."""

    __slots__ = ("pieces",)

    def __init__(
        self, pieces: AsyncGenerator[bytes], media_type: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(200, b"", headers, media_type)
        self.pieces = pieces

    async def send(self, send: Send, request: Request) -> None:
        headers = [
            (b"content-type", self.media_type),
            (b"x-request-id", request.id.encode()),
            UNCACHED,
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        try:
            await request.while_there(self._sent(send))
        except Disconnected:
            return
        await send({"type": "http.response.body", "body": b""})

    async def _sent(self, send: Send) -> None:
        async with aclosing(self.pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})


def failure(error: StrongroomError, request: Request) -> Answer:
    """The native face's error: RFC 9457."""
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers(error)]
    body = orjson.dumps(problem.document(error, request.id))
    return Answer(error.status, body, headers, b"application/problem+json")

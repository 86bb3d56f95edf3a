"""Django behind an ASGI server, in a few threads that stay.

Django's own ASGI handler makes a thread for each request, so each opens its own database connection and none is closed
in time (118 connections after 200 requests), and it spools bodies into a temporary file. Here a request's whole life,
middleware and all, is one call in one of `THREADS` threads, whose connections are used again; the body is in memory,
bounded by the caller (edge/django.py), and so is the answer: nothing large comes from Django.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core import signals
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http import HttpResponseBase
from django.urls import set_script_prefix

from strongroom import logs
from strongroom.errors import LimitReached, Malformed, StrongroomError
from strongroom.rest import problem
from strongroom.rest.requests import accepted_id

THREADS = 12
MAX_WAITING = 256

Scope = dict[str, Any]
Message = dict[str, Any]
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class DjangoInThreads:
    """An ASGI application. `_busy` counts on the event loop's thread; requests run in the pool's."""

    def __init__(self, threads: int = THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._handler = BaseHandler()
        self._handler.load_middleware()
        self._pool = ThreadPoolExecutor(threads, "django")
        self._limit = threads + max_waiting
        self._busy = 0

    async def __call__(
        self, scope: Scope, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if (body := await _read(receive)) is None:
            return
        status, headers, content = await self._answer(scope, body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope: Scope, body: bytes) -> Answer:
        if self._busy >= self._limit:
            return _refused(scope, LimitReached("too many requests at once; try again", code="concurrency_limited"))
        self._busy += 1
        context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(self._pool, context.run, self._respond, scope, body)
        work.add_done_callback(self._done)
        return await asyncio.shield(work)  # a caller that leaves does not stop a transaction half way

    def _done(self, work: asyncio.Future[Answer]) -> None:
        self._busy -= 1
        if not work.cancelled():
            work.exception()  # seen, though nobody waits for it any more

    def _respond(self, scope: Scope, body: bytes) -> Answer:
        set_script_prefix("/")
        signals.request_started.send(sender=type(self), scope=scope)
        try:
            request = ASGIRequest(scope, io.BytesIO(body))
        except (UnicodeDecodeError, ValueError):
            signals.request_finished.send(sender=type(self))
            return _refused(scope, Malformed("the request's head cannot be read", code="malformed_header"))
        response = self._handler.get_response(request)
        try:
            return _whole(response)
        finally:
            response.close()  # sends request_finished: this thread's connections that are too old or broken end


async def _read(receive: Callable[[], Awaitable[Message]]) -> bytes | None:
    """The whole body; None when the caller left. What is too large the caller of `__call__` raises from `receive`."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def _whole(response: HttpResponseBase) -> Answer:
    parts: Any = getattr(response, "streaming_content", response)
    content = b"".join(parts)
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    headers += [
        (b"set-cookie", cookie.output(header="").strip().encode("ascii")) for cookie in response.cookies.values()
    ]
    if not response.has_header("Content-Length"):
        headers.append((b"content-length", b"%d" % len(content)))
    return response.status_code, headers, content


def _refused(scope: Scope, error: StrongroomError) -> Answer:
    """An answer from before the middleware: with its request id all the same."""
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    token = logs.request_id.set(id := accepted_id(given))
    try:
        response = problem.response(error)
    finally:
        logs.request_id.reset(token)
    response["X-Request-Id"] = id
    return _whole(response)

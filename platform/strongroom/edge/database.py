"""The edge's way to the database: blocking functions in a bounded pool of threads, so that the event loop never waits.

At most `THREADS` calls run and `MAX_WAITING` wait; one more is refused with 503, and so is one that takes too long
(its thread ends it by itself: every statement and every lock has a time-out of its own).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from django.db import connections

from strongroom.errors import Unavailable

THREADS = 8
MAX_WAITING = 512
SECONDS = 25.0  # over SQLite's busy time-out of 20 s, which is the better error

P = ParamSpec("P")
T = TypeVar("T")

_pool = ThreadPoolExecutor(THREADS, "edge-database")
_running = 0


async def run(call: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
    """`call` in a thread with usable connections; what it raises is raised here."""
    global _running  # counted on the event loop's thread only
    if _running >= THREADS + MAX_WAITING:
        raise Unavailable("too many requests wait for the database", code="database_unavailable")
    context = contextvars.copy_context()
    _running += 1
    future = asyncio.get_running_loop().run_in_executor(_pool, lambda: context.run(_fresh, call, args, keywords))
    future.add_done_callback(_done)
    try:
        return await asyncio.wait_for(asyncio.shield(future), SECONDS)
    except TimeoutError:
        if future.done():  # the call's own time-out, not ours
            raise
        raise Unavailable("the database did not answer in time", code="database_unavailable") from None


def _done(future: asyncio.Future[Any]) -> None:
    global _running
    _running -= 1
    if not future.cancelled():
        future.exception()  # seen: an abandoned call's error is nobody's


def _fresh(call: Callable[..., T], args: tuple[object, ...], keywords: dict[str, object]) -> T:
    drop_broken()
    try:
        return call(*args, **keywords)
    finally:
        drop_broken()


def drop_broken() -> None:
    """Closes this thread's connections that failed or grew too old; SQLite's stay, since its file cannot go away."""
    for connection in connections.all(initialized_only=True):
        if connection.vendor != "sqlite" or connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()

"""What a web process does beside requests: watches the generations, flushes usage, writes access lines, says goodbye.

Each loop is one task that survives its own errors and tells them once. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from django.db import DatabaseError

from strongroom.access.principals import PRINCIPALS
from strongroom.edge import core, database, http
from strongroom.edge.access_log import LOG
from strongroom.edge.watch import WATCHES
from strongroom.metering.services import METER

LINES_SECONDS = 0.2
FLUSH_SECONDS = 2.0
LAST_FLUSH_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Background:
    """The lifespan of one web process. Everything runs on its event loop."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def lifespan(self, receive: http.Receive, send: http.Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _start(self) -> None:
        PRINCIPALS.start()
        loops = [
            _every(LINES_SECONDS, _write_lines),
            _every(FLUSH_SECONDS, flush_usage),
            WATCHES.poll(),
        ]
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_FLUSH_SECONDS):
                while METER.cut():
                    await database.run(METER.send)
        except Exception:
            logger.exception("the last usage could not be added")
        core.ENGINES.close()
        PRINCIPALS.stop()
        LOG.flush()


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    broken = False
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
            broken = False
        except Exception:
            if not broken:  # once, not every 0.2 s while the database is away
                logger.exception("background work failed; it is tried again")
            broken = True


async def _write_lines() -> None:
    LOG.flush()


async def flush_usage() -> None:
    """Adds what was counted to the table; left for the next time where the database is away."""
    if METER.cut():
        try:
            await database.run(METER.send)
        except DatabaseError as error:
            logger.warning("usage waits in memory: the database answers %s", type(error).__name__)

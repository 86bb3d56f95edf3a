"""Principals of keys, remembered: what Django's requests and the edge both ask first.

    from strongroom.access.principals import PRINCIPALS
    PRINCIPALS.peek(secret)         Principal or None, from memory only, in about a microsecond: for the event loop
    PRINCIPALS.load(secret)         Principal; from the database on a miss. Blocks: for threads
    await PRINCIPALS.fetch(secret)  the same for the event loop: a miss goes to one of four threads
    PRINCIPALS.start(), .stop()     in a process with an event loop: the thread that reads the generation every 0.3 s

An entry holds while the generation `principals` is the one it was read under, so a revocation reaches every process
within 0.3 s and the next look. While the database is away, entries go on holding for STRONGROOM_STALE_SECONDS, then
`load` says 503 database_unavailable. Only keys that were found are remembered; the memory is bounded and holds the
secrets' SHA-256, not the secrets. Knows nothing of HTTP and of sessions.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from django.conf import settings
from django.db import Error, close_old_connections
from django.utils import timezone

from strongroom.access import secrets, services
from strongroom.access.generations import GENERATIONS, Generations
from strongroom.access.services import Principal
from strongroom.errors import Unauthenticated, Unavailable

MAX_ENTRIES = 20_000
MAX_AGE_SECONDS = 60.0  # read again after this, though no generation told: what a lost bump could cost
AWAY_AFTER_SECONDS = 2.0  # the database counts as away when it was silent for this long
USE_EVERY_SECONDS = 60.0  # how exact last_used_at is

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    principal: Principal
    generation: int
    read_at: float


class PrincipalCache:
    """A bounded cache of `services.find`. `_lock` guards the order of `_entries`; `peek` reads without it."""

    def __init__(
        self,
        generations: Generations = GENERATIONS,
        *,
        stale_seconds: float | None = None,
        max_entries: int = MAX_ENTRIES,
        find: Callable[[str], Principal] = services.find,
    ) -> None:
        self._generations = generations
        self._stale_seconds = settings.ENVIRONMENT.number("stale_seconds") if stale_seconds is None else stale_seconds
        self._max_entries = max_entries
        self._find = find
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._used: dict[UUID, float] = {}  # key → when it was last written that it is in use
        self._threads: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None  # where it is, no request waits for last_used_at

    def peek(self, secret: str) -> Principal | None:
        """From memory: the principal while the entry holds, else None (then `load` or `fetch`). Never blocks."""
        entry = self._entries.get(secrets.digest(secret))
        return entry.principal if entry is not None and self._holds(entry) else None

    def load(self, secret: str) -> Principal:
        """The principal; Unauthenticated as `services.find`, Unavailable when the database is away for too long."""
        self._generations.look()
        if (known := self.peek(secret)) is not None:
            self._use(known)
            return known
        generation = self._generations.number("principals")
        digest = secrets.digest(secret)
        try:
            principal = self._find(secret)
        except Unauthenticated:
            with self._lock:
                self._entries.pop(digest, None)
            raise
        except Error as error:
            return self._stale(digest, error)
        with self._lock:
            self._entries[digest] = _Entry(principal, generation, monotonic())
            self._entries.move_to_end(digest)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        self._use(principal)
        return principal

    async def fetch(self, secret: str) -> Principal:
        """`load` for the event loop."""
        if (known := self.peek(secret)) is not None:
            return known
        if self._threads is None:
            self._threads = ThreadPoolExecutor(4, thread_name_prefix="principals")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._load_in_thread, secret)

    def start(self) -> None:
        """Has the generation read from a thread; call once in the process that serves."""
        self._generations.start()
        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="last-used")

    def stop(self) -> None:
        self._generations.stop()
        for pool in (self._threads, self._writer):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        self._threads = self._writer = None

    def forget(self) -> None:
        """Drops everything: tests between databases."""
        with self._lock:
            self._entries.clear()
            self._used.clear()

    def _load_in_thread(self, secret: str) -> Principal:
        close_old_connections()
        return self.load(secret)

    def _holds(self, entry: _Entry) -> bool:
        silent = self._generations.silent_seconds()
        if entry.generation != self._generations.number("principals") or silent > self._stale_seconds:
            return False
        fresh = monotonic() - entry.read_at <= MAX_AGE_SECONDS or silent > AWAY_AFTER_SECONDS
        return fresh and not entry.principal.has_expired

    def _stale(self, digest: bytes, error: Error) -> Principal:
        """What the memory says when the database just failed, though the entry is due for another look."""
        entry = self._entries.get(digest)
        if (
            entry is not None
            and entry.generation == self._generations.number("principals")
            and self._generations.silent_seconds() <= self._stale_seconds
            and not entry.principal.has_expired
        ):
            return entry.principal
        raise Unavailable("the database is unavailable; try again", code="database_unavailable") from error

    def _use(self, principal: Principal) -> None:
        """Writes last_used_at, at most once a minute and key; a failure is no matter."""
        now = monotonic()
        if now - self._used.get(principal.id, float("-inf")) < USE_EVERY_SECONDS:
            return
        if len(self._used) >= self._max_entries:
            self._used.clear()
        self._used[principal.id] = now
        if self._writer is None:
            _note_use(principal)
        else:
            self._writer.submit(_note_use_in_thread, principal)


def _note_use_in_thread(principal: Principal) -> None:
    close_old_connections()  # never in a caller's thread, whose transaction it would end
    _note_use(principal)


def _note_use(principal: Principal) -> None:
    try:
        services.note_use(principal, timezone.now())
    except Error as error:
        logger.warning("last_used_at was not written: %s", type(error).__name__)


PRINCIPALS = PrincipalCache()

"""The numbers that tell a process to reload: `principals`, `deployments` and `budgets`, read every 0.3 s.

Each change raises its number in its own transaction (models.Generation.bump). A process with an event loop starts the
thread (`start`); one without (tests, commands) reads in passing, whenever a caller finds the last look older than 0.3 s
(`look`). Knows nothing of what is cached by whom.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic

from django.db import Error, close_old_connections, connections

from strongroom.access.models import Generation

INTERVAL_SECONDS = 0.3
logger = logging.getLogger(__name__)


class Generations:
    """The numbers as last seen. Any thread may read; `_lock` lets one thread at a time ask the database."""

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._interval_seconds = interval_seconds
        self._numbers: dict[str, int] = {}  # replaced whole, never changed in place
        self._seen_at = float("-inf")
        self._due_at = float("-inf")
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def number(self, name: str) -> int:
        """The number as last seen; -1 before the first look."""
        return self._numbers.get(name, -1)

    def silent_seconds(self) -> float:
        """How long ago the database last answered; endless before it first did."""
        return monotonic() - self._seen_at

    def look(self) -> None:
        """Reads the numbers where the last look is older than the interval. Never raises; another's look is enough."""
        if monotonic() < self._due_at or not self._lock.acquire(blocking=False):
            return
        try:
            self._read()
        finally:
            self._due_at = monotonic() + self._interval_seconds
            self._lock.release()

    def _read(self) -> None:
        asked_at = monotonic()
        try:
            self._numbers = dict(Generation.objects.using("default").values_list("name", "value"))
        except Error as error:
            if self.silent_seconds() < 2 * self._interval_seconds:  # said once an outage
                logger.warning("the database does not answer: %s", type(error).__name__)
            connection = connections["default"]
            if not connection.in_atomic_block:
                connection.close()
        else:
            self._seen_at = asked_at

    def start(self) -> None:
        """Keeps looking from a thread of its own until `stop`; a second call does nothing."""
        if self._thread is None or not self._thread.is_alive():
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="generations", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.is_set():
            close_old_connections()
            self.look()
            self._stop.wait(self._interval_seconds)
        connections["default"].close()


GENERATIONS = Generations()

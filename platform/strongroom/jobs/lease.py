"""Keeping a claimed job: the lease renewed every 2 s, the row looked at every 0.3 s, what somebody wants of the job
told.

Used by the slot's thread only. A database that does not answer is tolerated until the lease has run out: then the
job may be another's already, and the work stops.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any, Literal, TypeVar

from django.db import DatabaseError, InterfaceError, connections
from django.db.models.functions import Now

from strongroom.jobs.models import Job
from strongroom.jobs.moves import Moved, held, write
from strongroom.tenants import scope

LOOK_SECONDS = 0.3
RENEW_SECONDS = 2.0
Want = Literal["cancel", "drain"]
T = TypeVar("T")
logger = logging.getLogger(__name__)


class Lease:
    """This worker's right to write to one job's row."""

    def __init__(self, job: Job, stop: threading.Event, lease_seconds: int) -> None:
        self.job = job
        self._stop = stop
        self._lease_seconds = lease_seconds
        self._renewed = self._looked = time.monotonic()
        self._cancel = False

    @property
    def until(self) -> Any:
        """What a write that renews puts into `lease_until`."""
        return Now() + timedelta(seconds=self._lease_seconds)

    def beat(self, **fields: Any) -> Want | None:
        """Does what is due; says what is wanted. `fields` are written with the next renewal. Moved."""
        now = time.monotonic()
        try:
            if now - self._renewed >= RENEW_SECONDS:
                with scope.tenant(self.job.tenant_id):
                    write(self.job, lease_until=self.until, **fields)
                self.renewed(now)
            if now - self._looked >= LOOK_SECONDS:
                self._look()
                self._looked = now
        except (DatabaseError, InterfaceError) as error:
            self.endure(error)
        if self._cancel:
            return "cancel"
        return "drain" if self._stop.is_set() else None

    def renewed(self, at: float | None = None) -> None:
        """Told by who wrote `lease_until` in a transaction that is now committed; `at` is when it began."""
        self._renewed = time.monotonic() if at is None else at

    def beside(self, work: Callable[[], T]) -> T:
        """The work's result: done in a thread of its own, however long it takes, while this one keeps the lease."""
        with ThreadPoolExecutor(1, "beside a lease") as pool:
            done = pool.submit(work)
            while not wait([done], LOOK_SECONDS).done:
                self.beat()
            return done.result()

    def _look(self) -> None:
        with scope.tenant(self.job.tenant_id, write=False):
            row = held(self.job).values_list("cancel_requested_at").first()
        if row is None:
            raise Moved
        self._cancel = row[0] is not None
        self.job.cancel_requested_at = row[0]

    def endure(self, error: Exception) -> None:
        """Something that is needed is away; Moved once the lease has run out without a renewal."""
        if time.monotonic() - self._renewed >= self._lease_seconds:
            raise Moved from error
        logger.warning("job %s: %s; holding it by its lease", self.job.id, type(error).__name__)
        if isinstance(error, DatabaseError | InterfaceError):
            connections.close_all()  # of this thread: the next try connects afresh

"""Watching rows for change: one poller a process for all who wait, whether for an answer or for a stream of events.

A watched row is named by (kind, id, number). The poller reads the states of all watched rows a few times a second, in
a few queries however many wait, and wakes who waits on what changed. It sees states and event numbers only; what is
shown to a caller is read again in the caller's tenant. Knows no requests: waiting.py, events.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from django.db.models import Max

from strongroom.datasets.models import DatasetVersion
from strongroom.deployments.models import Deployment
from strongroom.edge import database
from strongroom.jobs.models import Event, Job
from strongroom.jobs.states import TERMINAL
from strongroom.tenants import scope

POLL_SECONDS = 0.1
CHUNK = 500  # ids a query

DONE: dict[str, frozenset[str]] = {
    "job": frozenset(str(state) for state in TERMINAL),
    "dataset": frozenset({"ready", "failed", "deleted"}),
    "deployment": frozenset({"ready", "failed", "stopped"}),
}

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """What is watched: a job, a deployment, or a data set's version by its number."""

    kind: str
    id: UUID
    number: int = 0


class Mark(NamedTuple):
    """What the poller saw of a row last; a row that is gone has state "" ."""

    state: str
    event: int = 0


def is_done(row: Row, mark: Mark) -> bool:
    return not mark.state or mark.state in DONE[row.kind]


class Watched:
    """One row and who waits for its change."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.mark: Mark | None = None
        self.watchers = 0
        self._changed = asyncio.Event()

    @property
    def done(self) -> bool:
        return self.mark is not None and is_done(self.row, self.mark)

    def saw(self, mark: Mark) -> None:
        if mark != self.mark:
            self.mark = mark
            self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, seen: Mark | None, seconds: float) -> Mark | None:
        """The mark once it is another than `seen`, or the same after `seconds`."""
        if self.mark == seen:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)
        return self.mark


class Watches:
    """All watched rows of this process. Everything but `_read` runs on the event loop."""

    def __init__(self) -> None:
        self.ending = False  # the process stops: nobody waits any longer
        self._rows: dict[Row, Watched] = {}
        self._wanted: asyncio.Event | None = None

    @contextmanager
    def watching(self, row: Row) -> Iterator[Watched]:
        watched = self._rows.setdefault(row, Watched(row))
        watched.watchers += 1
        if self._wanted is not None:
            self._wanted.set()
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._rows[row]

    async def until_done(self, row: Row, seconds: float) -> bool:
        """Whether the row is done within `seconds`."""
        deadline = monotonic() + seconds
        with self.watching(row) as watched:
            while not watched.done and not self.ending and (left := deadline - monotonic()) > 0:
                await watched.change(watched.mark, left)
            return watched.done

    def end(self) -> None:
        """Who waits is answered with what is so far, and streams end: the callers come again."""
        self.ending = True
        for watched in self._rows.values():
            watched.wake()

    async def poll(self) -> None:
        """The poller: for the whole life of the process."""
        self._wanted = asyncio.Event()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._rows:
                await self._look()
                try:
                    await asyncio.wait_for(self._wanted.wait(), POLL_SECONDS)
                except TimeoutError:
                    continue
                self._wanted.clear()

    async def _look(self) -> None:
        rows = list(self._rows)
        try:
            marks = await database.run(read_marks, rows)
        except Exception as error:
            logger.warning("watched rows cannot be read: %s", type(error).__name__)
            await asyncio.sleep(1)
            return
        for row in rows:
            if (watched := self._rows.get(row)) is not None:
                watched.saw(marks.get(row, Mark("")))


WATCHES = Watches()


def read_marks(rows: list[Row]) -> dict[Row, Mark]:
    """State and last event of each row that exists."""
    marks: dict[Row, Mark] = {}
    with scope.operator("edge: states of watched rows", write=False):
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            marks |= _jobs([row for row in part if row.kind == "job"])
            marks |= _datasets([row for row in part if row.kind == "dataset"])
            marks |= _deployments([row for row in part if row.kind == "deployment"])
    return marks


def _jobs(rows: list[Row]) -> dict[Row, Mark]:
    if not rows:
        return {}
    wanted = [row.id for row in rows]
    last = dict(Event.objects.filter(job_id__in=wanted).values_list("job_id").annotate(Max("id")).order_by())
    states = Job.objects.filter(id__in=wanted).values_list("id", "state")
    return {Row("job", id): Mark(state, last.get(id, 0)) for id, state in states}


def _datasets(rows: list[Row]) -> dict[Row, Mark]:
    if not rows:
        return {}
    wanted = {(row.id, row.number) for row in rows}
    found = DatasetVersion.objects.filter(dataset_id__in={id for id, _ in wanted}, number__in={n for _, n in wanted})
    listed = found.values_list("dataset_id", "number", "state")
    return {Row("dataset", id, number): Mark(state) for id, number, state in listed if (id, number) in wanted}


def _deployments(rows: list[Row]) -> dict[Row, Mark]:
    if not rows:
        return {}
    states = Deployment.objects.filter(id__in=[row.id for row in rows]).values_list("id", "state")
    return {Row("deployment", id): Mark(state) for id, state in states}

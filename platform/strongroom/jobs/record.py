"""What a process says, on its way into the database: gathered, bounded, written a few times a second in one
transaction.

Used by the slot's thread. Numbers and states become events, lines of the log are sealed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from strongroom.jobs.lease import Lease
from strongroom.jobs.models import Attempt, Event, Job, LogLine
from strongroom.jobs.moves import write
from strongroom.jobs.packets import Progress, Ready
from strongroom.tenants import scope

FLUSH_SECONDS = 0.25
PROGRESS_SECONDS = 0.4  # between two events; epochs may end a thousand times a second
POINTS_PER_JOB = 100_000
LINES_PER_FLUSH = 200
LINES_PER_ATTEMPT = 10_000
Usage = tuple[float, int]


class Recorder:
    """One attempt's news."""

    def __init__(self, job: Job, lease: Lease) -> None:
        self._job = job
        self._lease = lease
        self._before: Mapping[str, Any] = job.usage or {}
        self._fields: dict[str, Any] = {}
        self._metrics: dict[str, float] = dict(job.metrics)
        self._events: list[Event] = []
        self._lines: list[LogLine] = []
        self._line_count = 0
        self._flushed = self._told = 0.0
        self._known = _known_metrics(job)

    def ready(self, packet: Ready) -> None:
        self._fields["device"] = packet.device

    def progress(self, packet: Progress) -> None:
        self._fields["progress"] = dict(packet.shown)
        if time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._add_event("progress", dict(packet.shown))
        for name, value in packet.metrics.items():
            epoch, step = packet.shown.get("epoch"), packet.shown.get("step")
            self._metrics[name] = value
            self._fields["metrics"] = self._metrics
            # After a loss the same epoch is told again.
            if (name, epoch, step) not in self._known and len(self._known) < POINTS_PER_JOB:
                self._known.add((name, epoch, step))
                self._add_event("metric", {"name": name, "epoch": epoch, "step": step, "value": value})

    def line(self, level: str, text: str) -> None:
        """Beyond the bound lines are dropped, and the log says so once."""
        self._line_count += 1
        if self._line_count > LINES_PER_ATTEMPT or len(self._lines) >= LINES_PER_FLUSH:
            return
        if self._line_count == LINES_PER_ATTEMPT:
            level, text = "warning", f"the log ends here: {LINES_PER_ATTEMPT} lines an attempt are kept"
        row = LogLine(tenant_id=self._job.tenant_id, job=self._job, attempt=self._job.attempt, level=level, text=text)
        self._lines.append(row)

    def usage(self, used: Usage) -> dict[str, Any]:
        """The job's over all its attempts."""
        seconds, peak_bytes = used
        return {
            "core_seconds": round(self._before.get("core_seconds", 0) + seconds, 3),
            "gpu_seconds": 0,
            "peak_memory_bytes": max(self._before.get("peak_memory_bytes", 0), peak_bytes),
            "energy_joules": None,
            "energy_source": "none",
        }

    def flush(self, used: Usage) -> None:
        """Writes what has gathered, where it is time. Moved."""
        now = time.monotonic()
        if now - self._flushed < FLUSH_SECONDS or not (self._fields or self._events or self._lines):
            return
        self._flushed = now
        with scope.tenant(self._job.tenant_id):
            self.write(used)
        self._lease.renewed(now)
        self.written()

    def write(self, used: Usage, *, final: bool = False) -> None:
        """The same inside the caller's transaction; `written` follows its commit."""
        write(self._job, lease_until=self._lease.until, usage=self.usage(used), **self._fields)
        Event.objects.bulk_create(self._events)
        LogLine.objects.bulk_create(self._lines)
        if final:
            seconds, peak_bytes = used
            own = {"core_seconds": round(seconds, 3), "peak_memory_bytes": peak_bytes}
            Attempt.objects.filter(job=self._job, number=self._job.attempt).update(usage=own, device=self._job.device)

    def written(self) -> None:
        """What was told is committed."""
        self._fields, self._events, self._lines = {}, [], []

    def _add_event(self, kind: str, data: dict[str, Any]) -> None:
        self._events.append(Event(tenant_id=self._job.tenant_id, job=self._job, kind=kind, data=data))


def _known_metrics(job: Job) -> set[tuple[str, Any, Any]]:
    if job.attempt < 2:
        return set()
    with scope.tenant(job.tenant_id, write=False):
        told = Event.objects.filter(job=job, kind="metric").values_list("data", flat=True)
        return {(data["name"], data.get("epoch"), data.get("step")) for data in told}

"""What must happen though nobody asks: lost leases, lost wake-ups, what has expired, files that belong to nothing.

Any number of schedulers may run, one acts: whoever holds the row of `jobs_lease`, taken by a conditional UPDATE and
kept for seconds. Every act is conditional by itself too, so that two at once would do no harm.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from django.db import DatabaseError
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from strongroom import ids
from strongroom.jobs import claim, endings, wakeups
from strongroom.jobs.models import Job, Lease
from strongroom.jobs.moves import Moved
from strongroom.jobs.states import State
from strongroom.rest.problem import log_failure
from strongroom.tenants import scope
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

HOLD_SECONDS = 3
LOST_WAKE_UP_SECONDS = 2.0
EXPIRE_SECONDS = 30.0
AT_ONCE = 200
logger = logging.getLogger(__name__)


class Sweeper:
    """One scheduler's loop body; used by one thread. Other rooms' chores are given to it."""

    def __init__(self, *chores: tuple[float, Callable[[], object]]) -> None:
        """`chores`: seconds between two runs, and what is run."""
        self.holder = ids.new()
        self._chores = [(0.0, take_lost), (LOST_WAKE_UP_SECONDS, wake_waiting), (EXPIRE_SECONDS, expire), *chores]
        self._ran = [-math.inf] * len(self._chores)

    def tick(self) -> bool:
        """One round; False where another scheduler acts."""
        if not hold(self.holder):
            return False
        for number, (seconds, call) in enumerate(self._chores):
            if time.monotonic() - self._ran[number] >= seconds:
                self._ran[number] = time.monotonic()
                _run(call)
        return True


def _run(call: Callable[[], object]) -> None:
    try:
        call()
    except DatabaseError:
        raise
    except Exception as error:  # one chore that fails must not stop the others; it is tried again at its next time
        logger.error("the sweep's %s failed", getattr(call, "__name__", "chore"))
        log_failure(error)


def hold(holder: UUID) -> bool:
    """Takes or keeps the one right to sweep."""
    with scope.operator("sweep: who acts"):
        Lease.objects.get_or_create(name="sweep")
        free = Q(holder=holder) | Q(until=None) | Q(until__lt=Now())
        until = Now() + timedelta(seconds=HOLD_SECONDS)
        return bool(Lease.objects.filter(free, name="sweep").update(holder=holder, until=until))


def take_lost() -> int:
    """Jobs whose lease ran out: queued again, failed or cancelled. How many."""
    with scope.operator("sweep: lost leases", write=False):
        overdue = Job.objects.filter(state=State.RUNNING, lease_until__lt=Now())
        lost = list(overdue.values_list("tenant_id", "id", "fence")[:AT_ONCE])
    taken = 0
    for tenant_id, job_id, fence in lost:
        try:
            with scope.tenant(tenant_id):
                # Locked by this write: a worker that comes back now finds its fence's row no more its own.
                mine = Job.objects.filter(id=job_id, fence=fence, state=State.RUNNING, lease_until__lt=Now())
                if not mine.update(fence=F("fence") + 1):
                    continue
                job = Job.objects.get(id=job_id)
                logger.warning("job %s, attempt %s: its worker %s is lost", job.id, job.attempt, job.worker)
                endings.lost(job)
            taken += 1
        except Moved:
            continue
    return taken


def wake_waiting() -> None:
    """Wake-ups may be lost with the broker: one a queue where something has waited too long."""
    with scope.operator("sweep: lost wake-ups", write=False):
        queues = list(Job.objects.filter(state=State.QUEUED).values_list("queue", flat=True).distinct())
        since = Now() - timedelta(seconds=LOST_WAKE_UP_SECONDS)
        rows = claim.waiting(queues).annotate(from_when=Coalesce("not_before", "created_at"))
        late = set(rows.filter(from_when__lt=since).values_list("queue", flat=True).distinct())
    for queue in late:
        wakeups.send(queue)


def expire() -> None:
    """Predictions are kept for a day: output and answers go, the row says that it has expired."""
    vault.expire(timezone.now())
    with scope.operator("sweep: expired predictions"):
        rows = Job.objects.filter(kind="predict", expires_at__lt=Now())
        due = rows.filter(Q(result__isnull=False) | Q(output_artefact__state=Artefact.State.SEALED))[:AT_ONCE]
        for job in due.select_related("output_artefact"):
            if job.output_artefact is not None:
                vault.destroy(job.output_artefact)
            Job.objects.filter(id=job.id).update(result=None)

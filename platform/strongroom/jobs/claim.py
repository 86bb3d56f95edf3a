"""Which waiting job is next, and taking it: fair between tenants, by one conditional UPDATE that both databases
know.

Fewest running of that tenant first, then priority, then age. A tenant at its max_running_jobs waits with its long
jobs; short kinds (checks, imports, predictions) are not held by it, else a tenant's trainings would hold up its own
uploads. It knows nothing of what a job does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet, Window
from django.db.models.functions import Coalesce, Now, RowNumber

from strongroom.jobs.models import Attempt, Job
from strongroom.jobs.moves import Moved, move
from strongroom.jobs.states import State
from strongroom.tenants import scope
from strongroom.tenants import services as tenants
from strongroom.tenants.models import Tenant, TenantState

SHORT = ("check", "import", "predict")
TRIES = 3


class Overtaken:
    """Another worker was first."""


@dataclass(frozen=True, slots=True)
class Taker:
    """Who claims: the worker's name as the job will show it, the queues it serves, and whether for short kinds only."""

    worker: str
    queues: tuple[str, ...]
    lease_seconds: int
    short_only: bool = False


def claim(taker: Taker) -> tuple[Job, Attempt] | None:
    """The next job, now running under this worker's lease and a fresh fence; None where nothing may start."""
    for _ in range(TRIES):
        overtaken = False
        for tenant_id, job_id in _candidates(taker):
            with scope.tenant(tenant_id):
                taken = _take(taker, job_id)
            if isinstance(taken, tuple):
                return taken
            overtaken = overtaken or taken is Overtaken
        if not overtaken:
            return None
    return None


def waiting(queues: Collection[str], *, short_only: bool = False) -> QuerySet[Job]:
    """Jobs that wait to be claimed now. Needs the operator's scope."""
    rows = Job.objects.filter(Q(not_before=None) | Q(not_before__lte=Now()), state=State.QUEUED, queue__in=queues)
    rows = rows.filter(tenant__state=TenantState.ACTIVE)
    return rows.filter(kind__in=SHORT) if short_only else rows


def _candidates(taker: Taker) -> list[tuple[UUID, UUID]]:
    """The best waiting job of each tenant, long and short apart, the fairest first."""
    with scope.operator("claim: which job is next", write=False):
        running = Counter(Job.objects.filter(state=State.RUNNING).values_list("tenant_id", flat=True))
        best = waiting(taker.queues, short_only=taker.short_only).annotate(
            rank=Window(
                RowNumber(),
                partition_by=[F("tenant_id"), ExpressionWrapper(Q(kind__in=SHORT), BooleanField())],
                order_by=[F("priority").desc(), F("created_at")],
            )
        )
        rows = best.filter(rank=1).values_list("tenant_id", "id", "priority", "created_at")
        ordered = sorted(rows, key=lambda row: (running[row[0]], -row[2], row[3]))
    return [(tenant_id, job_id) for tenant_id, job_id, _, _ in ordered]


def _take(taker: Taker, job_id: UUID) -> tuple[Job, Attempt] | type[Overtaken] | None:
    """The job; Overtaken where another worker was first; None where the tenant's limit holds it."""
    # The tenant's row is locked, so that two workers cannot both take the last job that the limit allows.
    tenant = Tenant.objects.select_for_update(no_key=True).get(id=scope.tenant_id())
    job = Job.objects.filter(id=job_id, state=State.QUEUED).first()
    if job is None:
        return Overtaken
    if job.kind not in SHORT and _is_full(tenant):
        return None
    try:
        move(
            job,
            State.RUNNING,
            said={"attempt": job.attempt + 1},
            attempt=F("attempt") + 1,
            fence=F("fence") + 1,
            worker=taker.worker,
            lease_until=Now() + timedelta(seconds=taker.lease_seconds),
            started_at=Coalesce("started_at", Now()),
            not_before=None,
        )
    except Moved:
        return Overtaken
    return job, Attempt.objects.create(job=job, number=job.attempt, worker=taker.worker)


def _is_full(tenant: Tenant) -> bool:
    limit = tenants.limits(tenant)["max_running_jobs"]
    running = Job.objects.filter(state=State.RUNNING).exclude(kind__in=SHORT).count()
    return limit is not None and running >= limit

"""Changing a job's row: every change is one conditional UPDATE that matches what this process last saw.

A worker's writes match the fence number of its claim, so that a worker whose lease was taken can write nothing
more. What a change means for other rooms is in endings.py.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from strongroom.jobs.models import Event, Job
from strongroom.jobs.states import ALLOWED, State


class Moved(Exception):
    """The row is no longer what this process saw: another took the lease, or the job ended meanwhile."""


class NotAllowed(ValueError):
    """The table of states has no such step: a defect of ours."""


def move(
    job: Job, to: State, *, sealed: dict[str, Any] | None = None, said: dict[str, Any] | None = None, **fields: Any
) -> None:
    """One step of the table in states.py, inside the caller's transaction. Moved where another was first.

    `fields` are written by the UPDATE itself, `sealed` columns after it (the row is locked by then), `said` joins the
    data of the state event.
    """
    if to not in ALLOWED[State(job.state)]:
        raise NotAllowed(f"a job cannot go from {job.state} to {to}")
    if not Job.objects.filter(id=job.id, state=job.state, fence=job.fence).update(state=to, **fields):
        raise Moved
    job.refresh_from_db(fields=["state", *fields])
    for name, value in (sealed or {}).items():
        setattr(job, name, value)
    if sealed:
        job.save(update_fields=list(sealed))
    data = {"state": job.state, "attempt": job.attempt, **(said or {})}
    Event.objects.create(tenant_id=job.tenant_id, job=job, kind="state", data=data)


def held(job: Job) -> QuerySet[Job]:
    """The row while this claim holds: nothing is found once the fence moved on or the job ended."""
    return Job.objects.filter(id=job.id, fence=job.fence, state=State.RUNNING)


def write(job: Job, **fields: Any) -> None:
    """A worker's write that leaves the state as it is. Moved where the claim no longer holds."""
    if not held(job).update(**fields):
        raise Moved
    for name, value in fields.items():
        setattr(job, name, value)

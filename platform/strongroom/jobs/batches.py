"""Batches as callers see them: jobs of kind `batch`; `batch_…` and `job_…` are one uuid.

The lines stay the file's, the answers become files. How they are answered is in batch_work.py.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from strongroom import ids
from strongroom.errors import NotFound
from strongroom.files import services as files
from strongroom.files.models import File
from strongroom.jobs import plans
from strongroom.jobs.models import Batch, Job
from strongroom.jobs.states import TERMINAL, State
from strongroom.openai import resources
from strongroom.openai.batches import BatchRequest
from strongroom.tenants.actor import Actor
from training import spec as specs

WINDOW = timedelta(hours=24)
NAME = "batch"  # until the lines have named their model


def submit(actor: Actor, asked: BatchRequest) -> Job:
    """Invalid, NotFound, LimitReached (queue_full)."""
    expiry = asked.output_expires_after
    spec = {"endpoint": asked.endpoint, "file": asked.input_file_id}
    return _submit(actor, spec | {"output_seconds": None if expiry is None else expiry.seconds}, asked.metadata)


def resubmit(actor: Actor, job: Job) -> Job:
    """A retry: all lines again. NotFound where the file was deleted."""
    spec = {name: job.spec[name] for name in ("endpoint", "file", "output_seconds")}
    return _submit(actor, spec, job.batch.metadata, retry_of=job.id)


def _submit(
    actor: Actor, spec: dict[str, Any], metadata: dict[str, str] | None, *, retry_of: UUID | None = None
) -> Job:
    artefact = files.batch_input(spec["file"])
    plan = plans.Plan(specs.load({"kind": "batch", **spec}), NAME, artefact=artefact)
    job = plans.enqueue(actor, plan, retry_of=retry_of)
    Batch.objects.create(job=job, metadata=metadata)
    return batches().get(id=job.id)


def batches() -> QuerySet[Job]:
    """The tenant's, fit for `document`."""
    return Job.objects.filter(kind="batch").select_related("batch", "deployment")


def find(text_id: str) -> Job:
    """NotFound."""
    id = ids.parse("batch", text_id)
    if id is None or (job := batches().filter(id=id).first()) is None:
        raise NotFound("there is no such batch")
    return job


def reads(file: File) -> bool:
    """Whether a batch that has not ended reads the file."""
    if file.artefact_id is None:
        return False
    return Job.objects.filter(kind="batch", input_artefact=file.artefact_id).exclude(state__in=TERMINAL).exists()


def ends_at(job: Job) -> datetime:
    """When it expires, whatever was answered by then."""
    return job.created_at + WINDOW


def document(job: Job) -> resources.Json:
    """OpenAI's."""
    batch = job.batch
    return resources.batch(
        ids.text("batch", job.id),
        endpoint=job.spec["endpoint"],
        input_file=job.spec["file"],
        status=_status(job),
        created=int(job.created_at.timestamp()),
        output_file=ids.optional("file", batch.output_file_id),
        error_file=ids.optional("file", batch.error_file_id),
        counts=(batch.total, batch.completed, batch.failed),
        errors=_errors(job),
        times={name: int(at.timestamp()) for name, at in _times(job).items() if at is not None},
        metadata=batch.metadata,
    )


ENDED: dict[str, resources.BatchStatus] = {
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


def _status(job: Job) -> resources.BatchStatus:
    batch = job.batch
    if job.state in ENDED:
        return "expired" if batch.has_expired else ENDED[job.state]
    if job.cancel_requested_at is not None:
        return "cancelling"
    if job.state == State.QUEUED or batch.began_at is None:
        return "validating"
    return "in_progress" if batch.finalizing_at is None else "finalizing"


def _times(job: Job) -> dict[str, datetime | None]:
    batch = job.batch
    found: dict[str, datetime | None] = {
        "in_progress_at": batch.began_at,
        "expires_at": ends_at(job),
        "finalizing_at": batch.finalizing_at,
        "cancelling_at": job.cancel_requested_at,
    }
    if job.finished_at is not None:
        found[f"{_status(job)}_at"] = job.finished_at
    return found


def _errors(job: Job) -> list[resources.Json]:
    if job.state != State.FAILED:
        return []
    if job.batch.problems:
        return list(job.batch.problems)
    error = job.error or {}
    return [{"code": error.get("code"), "line": None, "message": error.get("message"), "param": None}]

"""The door of the jobs: submit, cancel, retry, delete, and a job as the native API shows it.

Each function is one step inside the caller's transaction, in the tenant's scope. What runs a job is in worker.py;
nothing here waits for one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce, Now

from strongroom import ids
from strongroom.access.services import Principal
from strongroom.audit.services import record
from strongroom.datasets.models import DatasetVersion
from strongroom.errors import Conflict, NotFound
from strongroom.jobs import batches as batch
from strongroom.jobs import endings, plans
from strongroom.jobs import predictions as asked
from strongroom.jobs.models import Event, Job, LogLine
from strongroom.jobs.states import TERMINAL, State
from strongroom.openai import resources
from strongroom.openai.batches import BatchRequest
from strongroom.registry.models import ModelVersion
from strongroom.rest.bodies import made_by, moment, optional_moment
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from training import spec as specs


def validate(document: object) -> plans.Plan:
    """What POST /jobs would run: `.document` with every default filled in, `.sha256`. Invalid, NotFound."""
    return plans.validate(document)


def check_rights(principal: Principal, spec: dict[str, Any]) -> None:
    """A job that deploys or predicts does what its submitter may do, the first time and at a retry. Denied."""
    register = spec.get("register") or {}
    if (deployment := register.get("deploy")) is not None:
        principal.require("deployments:write")
        principal.require_model(deployment)
    if register.get("stage") == "production":  # takes the place of the version that is it now
        principal.require("models:write")
    if spec["kind"] == "predict":
        principal.require("predict")
        principal.require_model(spec["deployment"])
    if spec["kind"] == "batch":
        principal.require("predict")


def submit_plan(actor: Actor, plan: plans.Plan, *, metadata: dict[str, str] | None = None) -> Job:
    """What `validate` found, submitted."""
    return plans.enqueue(actor, plan, metadata=metadata)


def submit(actor: Actor, document: object, *, retry_of: UUID | None = None) -> Job:
    """A training or an import that waits for a worker. Invalid, NotFound, LimitReached (queue_full)."""
    return plans.enqueue(actor, plans.validate(document), retry_of=retry_of)


def submit_check(actor: Actor, version: DatasetVersion, *, retry_of: UUID | None = None) -> Job:
    """The check of an uploaded data set."""
    document = {"kind": "check", "dataset": _reference(version)}
    job = plans.enqueue(actor, plans.Plan(specs.load(document), version.dataset.name, version), retry_of=retry_of)
    version.check_job_id = job.id
    version.save(update_fields=["check_job_id"])
    return job


def submit_prediction(actor: Actor, document: object) -> Job:
    """An asynchronous prediction: `{deployment, rows | inputs | dataset}`. Invalid, NotFound, LimitReached."""
    return asked.submit(actor, document)


def prediction(prediction_id: UUID | None) -> Job:
    """The prediction's job. NotFound, Gone (expired)."""
    return asked.find(prediction_id)


def prediction_document(job: Job) -> dict[str, Any]:
    """The body of `/predictions/{id}`."""
    return asked.document(job)


def prediction_output(job: Job) -> Artefact:
    """What `/predictions/{id}/output` downloads: kind `output`, JSON Lines. Conflict job_unfinished, NotFound."""
    return asked.output(job)


def submit_batch(actor: Actor, asked: BatchRequest) -> Job:
    """All lines of a file, asked of a deployment. Invalid, NotFound, LimitReached."""
    return batch.submit(actor, asked)


def batch_of(text_id: str) -> Job:
    """The batch's job. NotFound."""
    return batch.find(text_id)


def batches() -> QuerySet[Job]:
    """The tenant's, fit for `batch_document`."""
    return batch.batches()


def batch_document(job: Job) -> resources.Json:
    """OpenAI's."""
    return batch.document(job)


def predictions() -> QuerySet[Job]:
    """The tenant's predictions that have not expired."""
    return Job.objects.filter(kind="predict").filter(Q(expires_at=None) | Q(expires_at__gt=Now()))


def cancel(actor: Actor, job: Job) -> Job:
    """A waiting job ends at once, a running one when its worker confirms (≤ 1 s). Conflict job_finished."""
    unfinished = Job.objects.filter(id=job.id).exclude(state__in=TERMINAL)
    unfinished.update(cancel_requested_at=Coalesce("cancel_requested_at", Now()))  # locks: no worker claims it now
    job.refresh_from_db()
    if job.state in (State.SUCCEEDED, State.FAILED):
        raise Conflict(f"the job has {job.state}; only a waiting or running job can be cancelled", code="job_finished")
    record(actor, "job.cancel", "job", job.id, state=job.state)
    if job.state == State.QUEUED:
        endings.cancel(job)
        job.refresh_from_db()
    return job


def retry(actor: Actor, job: Job) -> Job:
    """A new job from the spec of one that has ended. Conflict job_unfinished, Invalid, NotFound, Gone."""
    if job.state not in TERMINAL:
        raise Conflict(f"the job is {job.state}; cancel it or wait for its end", code="job_unfinished")
    if job.kind == "check":
        return submit_check(actor, _version_of(job), retry_of=job.id)
    if job.kind == "predict":
        return asked.resubmit(actor, job)
    if job.kind == "batch":
        return batch.resubmit(actor, job)
    return submit(actor, job.spec, retry_of=job.id)


def delete(actor: Actor, job: Job) -> None:
    """Forgets a job that has ended: its events, its log, a prediction's output. Conflict job_unfinished."""
    if job.state not in TERMINAL:
        raise Conflict(f"the job is {job.state}; cancel it first", code="job_unfinished")
    if job.output_artefact is not None:
        vault.destroy(job.output_artefact)
    record(actor, "job.delete", "job", job.id, kind=job.kind, state=job.state)
    job.delete()


def jobs(*, state: str | None = None, kind: str | None = None, name: str | None = None) -> QuerySet[Job]:
    """The tenant's jobs."""
    given = {"state": state, "kind": kind, "name": name}
    return Job.objects.filter(**{field: value for field, value in given.items() if value is not None})


def find(job_id: UUID | None) -> Job:
    """The job, or NotFound: for another tenant's too."""
    if job_id is None or (job := Job.objects.filter(id=job_id).first()) is None:
        raise NotFound("there is no such job")
    return job


def log_lines(job: Job, after: int = 0) -> QuerySet[LogLine]:
    """Oldest first, from beyond line `after`."""
    return LogLine.objects.filter(job=job, id__gt=after).order_by("id")


def metric_events(job: Job) -> QuerySet[Event]:
    """Oldest first."""
    return Event.objects.filter(job=job, kind="metric").order_by("id")


def reads(version: DatasetVersion) -> bool:
    """Whether a job that has not ended reads the version."""
    return Job.objects.filter(dataset_version=version).exclude(state__in=TERMINAL).exists()


def tunes(version: ModelVersion) -> bool:
    """Whether a job that has not ended learns an adapter for the version."""
    return Job.objects.filter(base_version=version).exclude(state__in=TERMINAL).exists()


def document(job: Job, *, spec: bool = True) -> dict[str, Any]:
    """The body of the native API; lists leave the spec out."""
    body = {
        "id": ids.text("job", job.id),
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "cancel_requested_at": optional_moment(job.cancel_requested_at),
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "priority": job.priority,
        "queue": job.queue,
        "worker": job.worker,
        "device": job.device,
        "progress": job.progress,
        "metrics": job.metrics,
        "usage": job.usage,
        "cost": None if job.cost is None else str(job.cost),
        "currency": job.currency,
        "result": _shown_result(job),
        "error": job.error,
        "retry_of": ids.optional("job", job.retry_of),
        "created_at": moment(job.created_at),
        "started_at": optional_moment(job.started_at),
        "finished_at": optional_moment(job.finished_at),
        "created_by": made_by(job),
    }
    return body | ({"spec": job.spec} if spec else {}) | {"spec_sha256": job.spec_sha256}


def log_document(line: LogLine) -> dict[str, Any]:
    return {"id": line.id, "at": moment(line.at), "level": line.level, "text": line.text}


def metric_document(event: Event) -> dict[str, Any]:
    return {name: event.data.get(name) for name in ("name", "epoch", "step", "value")} | {"at": moment(event.at)}


def _shown_result(job: Job) -> dict[str, Any] | None:
    """A prediction's answers are for the scope `predict` (predictions.py), not for who may read jobs."""
    if job.result is None or job.kind != "predict":
        return job.result
    return {key: job.result[key] for key in ("deployment", "model", "version", "rows")}


def _version_of(job: Job) -> DatasetVersion:
    version = job.dataset_version
    if version is None or version.state == DatasetVersion.State.DELETED:
        raise NotFound("the data set version was deleted")
    return version


def _reference(version: DatasetVersion) -> dict[str, Any]:
    return {"name": version.dataset.name, "version": version.number}

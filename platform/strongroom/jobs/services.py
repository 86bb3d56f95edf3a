"""The door of the jobs: submit, cancel, retry, delete, and a job as the native API shows it.

Each function is one step inside the caller's transaction, in the tenant's scope. What runs a job is in worker.py;
nothing here waits for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce, Now

from strongroom import ids
from strongroom.audit.services import record
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.errors import Conflict, FieldError, Invalid, LimitReached, NotFound
from strongroom.jobs import endings, wakeups
from strongroom.jobs.models import Event, Job, LogLine
from strongroom.jobs.states import TERMINAL, State
from strongroom.registry import services as registry
from strongroom.rest.bodies import made_by, moment, optional_moment
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from training import spec as specs
from training.spec.facts import contradictions

WAITING_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid spec with what it names looked up."""

    spec: specs.Spec
    name: str
    version: DatasetVersion | None = None
    artefact: Artefact | None = None

    @property
    def document(self) -> dict[str, Any]:
        return self.spec.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        return specs.sha256(self.spec)


def validate(document: object) -> Plan:
    """What POST /jobs would run: every default filled in, the newest data set version named. Invalid, NotFound."""
    try:
        spec = specs.load(document, kinds=specs.SUBMITTED)
        if isinstance(spec, specs.TrainSpec):
            return _plan_training(spec)
        return _plan_import(spec)
    except specs.SpecProblems as problems:
        raise invalid_spec(problems.problems) from None


def invalid_spec(problems: Sequence[specs.Problem], code: str = "invalid_spec") -> Invalid:
    return Invalid.all([FieldError(p.path, p.code, p.message, p.hint) for p in problems], code)


def submit(actor: Actor, document: object, *, retry_of: UUID | None = None) -> Job:
    """A training or an import that waits for a worker. Invalid, NotFound, LimitReached (queue_full)."""
    return enqueue(actor, validate(document), retry_of=retry_of)


def submit_check(actor: Actor, version: DatasetVersion, *, retry_of: UUID | None = None) -> Job:
    """The check of an uploaded data set."""
    document = {"kind": "check", "dataset": _reference(version)}
    job = enqueue(actor, Plan(specs.load(document), version.dataset.name, version), retry_of=retry_of)
    version.check_job_id = job.id
    version.save(update_fields=["check_job_id"])
    return job


def submit_prediction(actor: Actor, document: object) -> Job:
    """An asynchronous prediction: `{deployment, rows | inputs | dataset}`. Invalid, NotFound, LimitReached."""
    return _predictions().submit(actor, document)


def prediction(prediction_id: UUID | None) -> Job:
    """The prediction's job. NotFound, Gone (expired)."""
    return _predictions().find(prediction_id)


def prediction_document(job: Job) -> dict[str, Any]:
    """The body of `/predictions/{id}`."""
    return _predictions().document(job)


def prediction_output(job: Job) -> Artefact:
    """What `/predictions/{id}/output` downloads: kind `output`, JSON Lines. Conflict job_unfinished, NotFound."""
    return _predictions().output(job)


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
        return _predictions().resubmit(actor, job)
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
    return body | {"spec": job.spec, "spec_sha256": job.spec_sha256} if spec else body


def log_document(line: LogLine) -> dict[str, Any]:
    return {"id": line.id, "at": moment(line.at), "level": line.level, "text": line.text}


def metric_document(event: Event) -> dict[str, Any]:
    return {name: event.data.get(name) for name in ("name", "epoch", "step", "value")} | {"at": moment(event.at)}


def _shown_result(job: Job) -> dict[str, Any] | None:
    """A prediction's answers are for the scope `predict` (predictions.py), not for who may read jobs."""
    if job.result is None or job.kind != "predict":
        return job.result
    return {key: job.result[key] for key in ("deployment", "model", "version", "rows")}


def _plan_training(spec: specs.TrainSpec) -> Plan:
    version = ready_version(spec.dataset.name, spec.dataset.version, "/dataset")
    spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"version": version.number})})
    if problems := contradictions(spec, datasets.document(version)):
        raise invalid_spec(problems, "dataset_contradicts_spec")
    registry.check_name(spec.register_.model or spec.name, spec.task)
    return Plan(spec, spec.name, version)


def _plan_import(spec: specs.Spec) -> Plan:
    if not isinstance(spec, specs.ImportSpec):  # POST takes two kinds, and the other was looked at
        raise TypeError(type(spec).__name__)
    artefact_id = ids.parse("art", spec.artefact)
    artefact = registry.pending_import(artefact_id or UUID(int=0))
    registry.check_name(spec.model, spec.task)
    return Plan(spec, spec.name, artefact=artefact)


def ready_version(name: str, number: int | None, path: str) -> DatasetVersion:
    """The version that a job shall read. NotFound, Invalid (dataset_not_ready)."""
    try:
        version = datasets.resolve(name, number)
    except NotFound as error:
        raise NotFound(
            error.detail, errors=[FieldError(path, "not_found", error.detail, "GET /api/v1/datasets")]
        ) from None
    if version.state != DatasetVersion.State.READY:
        why = "its check has not ended" if version.state == DatasetVersion.State.CHECKING else "its check found faults"
        raise Invalid(
            f"the data set {version} is {version.state}: {why}",
            code="dataset_not_ready",
            errors=[
                FieldError(path, "dataset_not_ready", f"{version} is {version.state}", "use a version that is ready")
            ],
        )
    return version


def _version_of(job: Job) -> DatasetVersion:
    version = job.dataset_version
    if version is None or version.state == DatasetVersion.State.DELETED:
        raise NotFound("the data set version was deleted")
    return version


def _reference(version: DatasetVersion) -> dict[str, Any]:
    return {"name": version.dataset.name, "version": version.number}


def enqueue(actor: Actor, plan: Plan, *, retry_of: UUID | None = None, **fields: Any) -> Job:
    if Job.objects.filter(state=State.QUEUED)[:WAITING_LIMIT].count() >= WAITING_LIMIT:
        raise LimitReached(
            f"{WAITING_LIMIT} jobs wait already; wait for some to start or cancel them", code="queue_full"
        )
    resources = plan.spec.resources
    job = Job.objects.create(
        kind=plan.spec.kind,
        name=plan.name,
        spec=plan.document,
        spec_sha256=plan.sha256,
        dataset_version=plan.version,
        input_artefact=plan.artefact,
        priority=resources.priority,
        max_attempts=resources.max_attempts,
        retry_of=retry_of,
        created_by_kind=actor.kind,
        created_by_id=actor.id,
        **fields,
    )
    Event.objects.create(job=job, kind="state", data={"state": job.state, "attempt": 0})
    record(actor, "job.submit" if retry_of is None else "job.retry", "job", job.id, kind=job.kind)
    wakeups.after_commit(job.queue)
    return job


def _predictions() -> Any:
    """predictions.py builds on this module; imported at first use."""
    from strongroom.jobs import predictions

    return predictions

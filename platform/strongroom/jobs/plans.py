"""From a document to a waiting job: the spec read, what it names looked up, the row written.

All that can be refused is refused here, before a worker is taken: every problem of the spec at once, a data set
that is not ready or contradicts it. Inside the caller's transaction, in the tenant's scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from strongroom import ids
from strongroom.audit.services import record
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.errors import FieldError, Invalid, LimitReached, NotFound
from strongroom.jobs import wakeups
from strongroom.jobs.models import Event, Job
from strongroom.jobs.states import State
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from training import spec as specs
from training.spec.facts import contradictions
from training.spec.finetune import contradictions as tuning_contradictions

WAITING_LIMIT = 10_000
SPEC_BYTES = 48 * 1024  # it travels to the job's process in one packet of 64 KiB


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid spec with what it names looked up."""

    spec: specs.Spec
    name: str
    version: DatasetVersion | None = None
    artefact: Artefact | None = None
    base: ModelVersion | None = None

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
    except specs.SpecProblems as problems:
        raise invalid_spec(problems.problems) from None
    if (size := len(specs.canonical(spec))) > SPEC_BYTES:
        raise invalid_spec([specs.Problem("", "too_long", f"has {size} bytes of JSON", f"at most {SPEC_BYTES}")])
    if isinstance(spec, specs.FinetuneSpec):
        return _plan_finetuning(spec)
    return _plan_training(spec) if isinstance(spec, specs.TrainSpec) else _plan_import(spec)


def invalid_spec(problems: Sequence[specs.Problem], code: str = "invalid_spec") -> Invalid:
    return Invalid.all([FieldError(p.path, p.code, p.message, p.hint) for p in problems], code)


def check_queue() -> None:
    """LimitReached queue_full."""
    if Job.objects.filter(state=State.QUEUED)[:WAITING_LIMIT].count() >= WAITING_LIMIT:
        raise LimitReached(
            f"{WAITING_LIMIT} jobs wait already; wait for some to start or cancel them", code="queue_full"
        )


def enqueue(actor: Actor, plan: Plan, *, retry_of: UUID | None = None, **fields: Any) -> Job:
    """LimitReached: too many wait, or the tenant's storage is full and the job would add to it."""
    check_queue()
    if plan.spec.kind != "check":
        vault.check_room(scope.tenant_id())
    resources = plan.spec.resources
    job = Job.objects.create(
        kind=plan.spec.kind,
        name=plan.name,
        spec=plan.document,
        spec_sha256=plan.sha256,
        dataset_version=plan.version,
        input_artefact=plan.artefact,
        base_version=plan.base,
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


def _plan_training(spec: specs.TrainSpec) -> Plan:
    version = ready_version(spec.dataset.name, spec.dataset.version, "/dataset")
    spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"version": version.number})})
    if problems := contradictions(spec, datasets.document(version)):
        raise invalid_spec(problems, "dataset_contradicts_spec")
    registry.check_name(spec.register_.model or spec.name, spec.task)
    return Plan(spec, spec.name, version)


def _plan_finetuning(spec: specs.FinetuneSpec) -> Plan:
    version = ready_version(spec.dataset.name, spec.dataset.version, "/dataset")
    base = _ready_base(spec.base.model, spec.base.version)
    update = {
        "dataset": spec.dataset.model_copy(update={"version": version.number}),
        "base": spec.base.model_copy(update={"version": base.number}),
    }
    spec = spec.model_copy(update=update)
    if problems := tuning_contradictions(spec, datasets.document(version), base.signature):
        raise invalid_spec(problems, "dataset_contradicts_spec")
    registry.check_name(spec.register_.model or spec.name, "generation")
    return Plan(spec, spec.name, version, base=base)


def _ready_base(name: str, number: int | None) -> ModelVersion:
    try:
        version = registry.resolve(name, number)
    except NotFound as error:
        problem = FieldError("/base", "not_found", error.detail, "GET /api/v1/models")
        raise NotFound(error.detail, errors=[problem]) from None
    if version.state != ModelVersion.State.READY:
        raise Invalid(f"{version} was {version.state} and cannot be tuned", code="version_rejected")
    if version.artefact is None:
        hint = "import the model yourself, and tune that"
        raise invalid_spec([specs.Problem("/base", "public_base", f"{version} is another tenant's public model", hint)])
    return version


def _plan_import(spec: specs.Spec) -> Plan:
    if not isinstance(spec, specs.ImportSpec):  # POST takes two kinds, and the other was looked at
        raise TypeError(type(spec).__name__)
    artefact_id = ids.parse("art", spec.artefact)
    upload = registry.pending_import(artefact_id or UUID(int=0))
    registry.check_name(spec.model, spec.task)
    return Plan(spec, spec.name, artefact=upload.artefact)


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

"""A fine-tuning, its events and its checkpoint as OpenAI's documents, from a job's rows.

Every function reads the database, in the tenant's scope.
"""

from __future__ import annotations

from typing import Any, Literal

from django.utils import timezone

from strongroom import ids
from strongroom.jobs.models import Event, Job
from strongroom.openai import resources, tuning
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion

EVENT, CHECKPOINT = "ftevent", "ftckpt"
Level = Literal["info", "warn", "error"]
DATA_FAULTS = ("dataset_contradicts_spec", "dataset_not_ready")


def document(job: Job) -> resources.Json:
    spec: dict[str, Any] = job.spec
    version = _adapter(job)
    status, error = _status(job)
    return resources.fine_tuning_job(
        _id(job),
        created=int(job.created_at.timestamp()),
        model=str(job.base_version),
        organization=ids.text("ten", job.tenant_id),
        status=status,
        training_file=_file(job),
        hyperparameters=tuning.chosen(spec),
        seed=spec["train"]["seed"],
        method=spec["method"]["name"],
        fine_tuned_model=None if version is None else str(version),
        finished=None if job.finished_at is None else int(job.finished_at.timestamp()),
        estimated_finish=_estimated(job),
        trained_tokens=None if version is None else _tokens(version),
        error=error,
        metadata=job.metadata,
    )


def _adapter(job: Job) -> ModelVersion | None:
    """What it made, where that can be deployed."""
    if job.state != "succeeded":
        return None
    return registry.versions().filter(job_id=job.id, state=ModelVersion.State.READY).first()


def _status(job: Job) -> tuple[resources.JobStatus, dict[str, str | None] | None]:
    """An adapter that failed its proof is a failed job here: there is nothing that could be deployed."""
    if job.state == "succeeded" and (job.result or {}).get("state") == "rejected":
        rejected = registry.versions().filter(job_id=job.id).first()
        reasons = (rejected.reasons if rejected is not None else None) or ["the adapter failed its proof"]
        return "failed", {"code": "adapter_rejected", "message": reasons[0], "param": None}
    if job.state != "failed":
        status: resources.JobStatus = job.state  # type: ignore[assignment]  # the table of states has these words
        return status, None
    found = job.error or {}
    message = "; ".join(str(said) for said in (found.get("message"), found.get("hint")) if said)
    param = "training_file" if found.get("code") in DATA_FAULTS else None
    return "failed", {"code": str(found.get("code")), "message": message, "param": param}


def _file(job: Job) -> str:
    """The file's id; of a data set that was no file its name and version."""
    version = job.dataset_version
    if version is None:
        return ""
    text_id = version.dataset.name.replace("-", "_", 1)
    return text_id if ids.parse("file", text_id) is not None else str(version)


def _estimated(job: Job) -> int | None:
    seconds = (job.progress or {}).get("eta_seconds")
    return None if job.state != "running" or seconds is None else int(timezone.now().timestamp() + seconds)


def _tokens(version: ModelVersion) -> int | None:
    """A card is a claim."""
    card = version.card or {}
    tokens, epochs = card.get("tokens"), card.get("epochs")
    return tokens * epochs if type(tokens) is int and type(epochs) is int else None


def event(job: Job, row: Event) -> resources.Json:
    id, created = f"{EVENT}_{ids.base32(row.id, 26)}", int(row.at.timestamp())
    if row.kind == "metric":
        return tuning.metric_event(id, created, row.data)
    level, message = _told(job, row.data["state"], row.data["attempt"])
    return resources.fine_tuning_event(id, created=created, level=level, message=message)


def _told(job: Job, state: str, attempt: int) -> tuple[Level, str]:
    """What a change of state means; the adapter is not called before it is deployed."""
    if state == "queued":
        return "info", "The job waits for a worker again" if attempt else f"Created fine-tuning job: {_id(job)}"
    if state == "running":
        return "info", "Fine-tuning job started" if attempt == 1 else f"Fine-tuning job goes on: attempt {attempt}"
    status, error = _status(job)
    if error is not None:
        return "error", f"The job has failed: {error['message']}"
    if status == "cancelled":
        return "warn", "The job was cancelled"
    version = _adapter(job)
    if version is None:
        return "info", "The job has succeeded; the model that it made was deleted"
    return "info", f"New fine-tuned model: {version}. Deploy it to call it: POST /api/v1/deployments"


def _id(job: Job) -> str:
    """In both faces."""
    return ids.text("job", job.id)


def checkpoint(job: Job) -> resources.Json | None:
    """The adapter at its end: what is kept on the way is for going on after a kill, and cannot be deployed."""
    version = _adapter(job)
    if version is None or job.finished_at is None:
        return None
    return resources.fine_tuning_checkpoint(
        ids.text(CHECKPOINT, job.id),
        created=int(job.finished_at.timestamp()),
        job=_id(job),
        model=str(version),
        step=int((job.progress or {}).get("steps") or 0),
        metrics={tuning.metric(name): value for name, value in job.metrics.items() if name.endswith("/loss")},
    )

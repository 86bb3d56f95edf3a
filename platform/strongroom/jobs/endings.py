"""How an attempt ends: the job ends with it, or goes back to the queue. One transaction each, the caller's.

Here is what every kind has in common, whoever ends it (the worker, the sweep, a person's cancel); what a success
becomes is in outcomes.py. Knows neither processes nor sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models.functions import Now
from django.utils import timezone

from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import wakeups
from strongroom.jobs.models import Attempt, Job
from strongroom.jobs.moves import move
from strongroom.jobs.states import State
from strongroom.vault import services as vault

PREDICTION_HOURS = 24


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, as its owner reads it; `detail_code` is the finer code where the job's own is a family's."""

    code: str
    message: str
    hint: str | None = None
    detail_code: str | None = None

    @property
    def finest(self) -> str:
        return self.detail_code or self.code


WORKER_LOST = Failure(
    "worker_lost",
    "the job's process or its worker ended without an answer, as often as attempts are allowed",
    "retry it; if it happens again, ask for more resources.memory_bytes",
)


def prediction_expiry() -> datetime:
    """When the output of a prediction that ends now is destroyed."""
    return timezone.now() + timedelta(hours=PREDICTION_HOURS)


def succeed(job: Job, result: dict[str, Any], *, said: dict[str, Any], **fields: Any) -> None:
    """The job's one success. Moved where another was first, and nothing of the caller's transaction may stay."""
    if job.progress is not None:
        fields["progress"] = {**job.progress, "fraction": 1.0}
    _end(job, State.SUCCEEDED, outcome="succeeded", sealed={"result": result}, said={"result": said}, **fields)


def fail(job: Job, failure: Failure, *, outcome: str = "failed") -> None:
    """The job's one failure."""
    error = {"code": failure.code, "message": failure.message, "hint": failure.hint}
    said = {"error": {"code": failure.code}}
    _end(job, State.FAILED, outcome=outcome, sealed={"error": error}, said=said, error_code=failure.code)
    if job.kind == "check":
        _mark_version(job, failure.finest, failure.message, failure.hint)


def cancel(job: Job) -> None:
    """From queued at once; from running when its worker confirms or is lost."""
    _end(job, State.CANCELLED, outcome="cancelled", sealed={}, said={})
    if job.kind == "check":
        _mark_version(job, "check_failed", "the check was cancelled", "retry the check, or upload the data set again")


def hand_back(job: Job, *, outcome: str, wait_seconds: float = 0) -> None:
    """Running → queued: `lost` counts as an attempt used up, `drained` does not."""
    _close_attempt(job, outcome)
    pause = Now() + timedelta(seconds=wait_seconds) if wait_seconds else None
    move(job, State.QUEUED, lease_until=None, worker=None, device=None, not_before=pause)
    wakeups.after_commit(job.queue)


def lost(job: Job) -> None:
    """What becomes of a job whose process or worker is gone: cancelled where that was asked, another try, or failed."""
    if job.cancel_requested_at is not None:
        cancel(job)
    elif Attempt.objects.filter(job=job, outcome="lost").count() + 1 >= job.max_attempts:
        fail(job, WORKER_LOST, outcome="lost")
    else:
        hand_back(job, outcome="lost")


def _end(job: Job, to: State, *, outcome: str, sealed: dict[str, Any], said: dict[str, Any], **fields: Any) -> None:
    if job.state == State.RUNNING:
        _close_attempt(job, outcome)
    if job.kind == "predict":
        fields["expires_at"] = prediction_expiry()
    move(job, to, sealed=sealed, said=said, finished_at=Now(), lease_until=None, **fields)
    _destroy_leftovers(job)


def _close_attempt(job: Job, outcome: str) -> None:
    rows = Attempt.objects.filter(job=job, number=job.attempt, ended_at=None)
    rows.update(ended_at=Now(), outcome=outcome)


def _destroy_leftovers(job: Job) -> None:
    """Checkpoints serve nobody once a job has ended; nor does the input of a prediction."""
    for attempt in job.attempts.select_related("checkpoint_artefact", "previous_artefact"):
        for artefact in (attempt.checkpoint_artefact, attempt.previous_artefact):
            if artefact is not None:
                vault.destroy(artefact)
    if job.kind == "predict" and job.input_artefact is not None:
        vault.destroy(job.input_artefact)


def _mark_version(job: Job, code: str, message: str, hint: str | None) -> None:
    version = job.dataset_version
    if version is not None and version.state == DatasetVersion.State.CHECKING:
        datasets.mark_failed(version, code, message, hint)

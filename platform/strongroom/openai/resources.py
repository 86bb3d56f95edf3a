"""What is kept and listed under `/v1`, as OpenAI's documents: files, fine-tuning jobs, their events and checkpoints,
batches, and pages of them. Times are whole seconds since 1970. Knows none of our rows: the handlers read those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Json = dict[str, Any]
Purpose = Literal["batch", "batch_output", "fine-tune", "fine-tune-results", "user_data"]
FileStatus = Literal["uploaded", "processed", "error"]
JobStatus = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


def page(found: Sequence[Json], has_more: bool) -> Json:
    """A page of a list; the SDK asks for the next one after the last id."""
    return {
        "object": "list",
        "data": list(found),
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
        "has_more": has_more,
    }


def file(
    id: str,
    *,
    size_bytes: int,
    created: int,
    name: str,
    purpose: Purpose,
    status: FileStatus = "processed",
    details: str | None = None,
    expires: int | None = None,
) -> Json:
    return {
        "id": id,
        "object": "file",
        "bytes": size_bytes,
        "created_at": created,
        "expires_at": expires,
        "filename": name,
        "purpose": purpose,
        "status": status,
        "status_details": details,
    }


def deleted(id: str) -> Json:
    return {"id": id, "object": "file", "deleted": True}


def fine_tuning_job(
    id: str,
    *,
    created: int,
    model: str,
    organization: str,
    status: JobStatus,
    training_file: str,
    hyperparameters: Mapping[str, int | float | str],
    seed: int,
    method: Literal["supervised", "dpo"] = "supervised",
    validation_file: str | None = None,
    result_files: Sequence[str] = (),
    fine_tuned_model: str | None = None,
    finished: int | None = None,
    estimated_finish: int | None = None,
    trained_tokens: int | None = None,
    error: Mapping[str, str | None] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Json:
    """`hyperparameters`: n_epochs, batch_size, learning_rate_multiplier, of dpo also beta; `error`: code, message,
    param."""
    chosen = dict(hyperparameters)
    return {
        "id": id,
        "object": "fine_tuning.job",
        "created_at": created,
        "estimated_finish": estimated_finish,
        "finished_at": finished,
        "model": model,
        "fine_tuned_model": fine_tuned_model,
        "organization_id": organization,
        "status": status,
        "error": None if error is None else dict(error),
        "training_file": training_file,
        "validation_file": validation_file,
        "result_files": list(result_files),
        "trained_tokens": trained_tokens,
        "hyperparameters": {name: value for name, value in chosen.items() if name != "beta"},
        "method": {"type": method, method: {"hyperparameters": chosen}},
        "integrations": [],
        "seed": seed,
        "metadata": None if metadata is None else dict(metadata),
    }


def fine_tuning_event(
    id: str, *, created: int, level: Literal["info", "warn", "error"], message: str, metrics: Json | None = None
) -> Json:
    return {
        "id": id,
        "object": "fine_tuning.job.event",
        "created_at": created,
        "level": level,
        "message": message,
        "type": "message" if metrics is None else "metrics",
        "data": metrics,
    }


def fine_tuning_checkpoint(
    id: str, *, created: int, job: str, model: str, step: int, metrics: Mapping[str, float | None]
) -> Json:
    """`metrics`: train_loss, valid_loss, train_mean_token_accuracy and their like."""
    return {
        "id": id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": created,
        "fine_tuning_job_id": job,
        "fine_tuned_model_checkpoint": model,
        "step_number": step,
        "metrics": {"step": step, **metrics},
    }


def batch(
    id: str,
    *,
    endpoint: str,
    input_file: str,
    status: BatchStatus,
    created: int,
    window: str = "24h",
    output_file: str | None = None,
    error_file: str | None = None,
    counts: tuple[int, int, int] = (0, 0, 0),
    errors: Sequence[Json] = (),
    times: Mapping[str, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Json:
    """`counts`: all requests, those completed, those failed; `times`: of `in_progress_at`, `completed_at` and so on."""
    total, completed, failed = counts
    moments = dict.fromkeys(TIMES) | dict(times or {})
    return {
        "id": id,
        "object": "batch",
        "endpoint": endpoint,
        "input_file_id": input_file,
        "completion_window": window,
        "status": status,
        "errors": {"object": "list", "data": list(errors)} if errors else None,
        "output_file_id": output_file,
        "error_file_id": error_file,
        "created_at": created,
        **moments,
        "request_counts": {"total": total, "completed": completed, "failed": failed},
        "metadata": None if metadata is None else dict(metadata),
    }


TIMES = (
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)

"""Files, fine-tuning jobs and batches, each judged by the SDK's class for it, and pages by its own paging."""

from __future__ import annotations

from typing import get_args

import orjson
import pytest
from openai.pagination import SyncCursorPage
from openai.types import Batch, FileDeleted, FileObject
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from strongroom.openai import resources
from tests.edge.openai.oracle import JSON, Wire, fits

NOW = 1_700_000_000
FILE = resources.file("file_1", size_bytes=12, created=NOW, name="train.jsonl", purpose="fine-tune")
JOB = resources.fine_tuning_job(
    "ftjob_1",
    created=NOW,
    model="smol",
    organization="ten_1",
    status="succeeded",
    training_file="file_1",
    hyperparameters={"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5},
    seed=7,
    validation_file="file_2",
    result_files=["file_3"],
    fine_tuned_model="ft:smol",
    finished=NOW + 9,
    trained_tokens=1000,
    metadata={"a": "b"},
)


def test_a_file_is_the_sdks_and_so_is_its_end() -> None:
    found: FileObject = fits(FileObject, FILE)
    assert (found.bytes, found.filename, found.status) == (12, "train.jsonl", "processed")
    fits(FileDeleted, resources.deleted("file_1"))


@pytest.mark.parametrize("purpose", get_args(resources.Purpose))
@pytest.mark.parametrize("status", get_args(resources.FileStatus))
def test_each_purpose_and_status_of_a_file_is_one_of_the_sdks(
    purpose: resources.Purpose, status: resources.FileStatus
) -> None:
    made = resources.file(
        "file_1", size_bytes=0, created=NOW, name="a", purpose=purpose, status=status, details="x", expires=NOW
    )
    fits(FileObject, made)


def test_a_fine_tuning_job_is_the_sdks() -> None:
    found: FineTuningJob = fits(FineTuningJob, JOB)
    assert found.hyperparameters.n_epochs == 3
    assert found.hyperparameters.batch_size == "auto"
    assert found.fine_tuned_model == "ft:smol"


@pytest.mark.parametrize("status", get_args(resources.JobStatus))
def test_each_status_of_a_job_is_one_of_the_sdks(status: resources.JobStatus) -> None:
    made = resources.fine_tuning_job(
        "ftjob_1",
        created=NOW,
        model="smol",
        organization="ten_1",
        status=status,
        training_file="file_1",
        hyperparameters={},
        seed=0,
        error={"code": "invalid", "message": "wrong", "param": None},
    )
    fits(FineTuningJob, made)


def test_events_and_checkpoints_of_a_job_are_the_sdks() -> None:
    said = resources.fine_tuning_event("ftevent_1", created=NOW, level="info", message="step 1")
    told = resources.fine_tuning_event("ftevent_2", created=NOW, level="warn", message="x", metrics={"loss": 0.5})
    assert [fits(FineTuningJobEvent, event).type for event in (said, told)] == ["message", "metrics"]
    point = resources.fine_tuning_checkpoint(
        "ftckpt_1", created=NOW, job="ftjob_1", model="ft:smol:1", step=100, metrics={"train_loss": 0.5}
    )
    found: FineTuningJobCheckpoint = fits(FineTuningJobCheckpoint, point)
    assert (found.step_number, found.metrics.train_loss) == (100, 0.5)


@pytest.mark.parametrize("status", get_args(resources.BatchStatus))
def test_a_batch_is_the_sdks_in_each_status(status: resources.BatchStatus) -> None:
    made = resources.batch(
        "batch_1",
        endpoint="/v1/chat/completions",
        input_file="file_1",
        status=status,
        created=NOW,
        output_file="file_2",
        error_file="file_3",
        counts=(5, 3, 2),
        errors=[{"code": "invalid", "line": 3, "message": "wrong", "param": None}],
        times={"completed_at": NOW},
        metadata={"a": "b"},
    )
    found: Batch = fits(Batch, made)
    assert found.request_counts is not None
    assert (found.request_counts.total, found.request_counts.completed, found.request_counts.failed) == (5, 3, 2)
    assert (found.completed_at, found.failed_at) == (NOW, None)


def test_no_status_of_the_sdks_is_without_a_name_of_ours() -> None:
    for model, ours in ((FineTuningJob, resources.JobStatus), (Batch, resources.BatchStatus)):
        assert get_args(model.model_fields["status"].annotation) == get_args(ours)


def test_the_sdk_turns_pages_to_the_end() -> None:
    files = [FILE | {"id": f"file_{number}"} for number in range(5)]
    pages = [resources.page(files[:3], has_more=True), resources.page(files[3:], has_more=False)]
    # first_id and last_id are OpenAI's; the SDK's class for a page reads neither
    for page in [*pages, resources.page([], has_more=False)]:
        told = {name: value for name, value in page.items() if name in ("data", "has_more")}
        fits(SyncCursorPage[FileObject], told)
    wire = Wire(*[(200, {"content-type": JSON}, orjson.dumps(page)) for page in pages])
    assert [file.id for file in wire.client().files.list()] == [file["id"] for file in files]
    assert [request.url.params.get("after") for request in wire.asked] == [None, "file_2"]

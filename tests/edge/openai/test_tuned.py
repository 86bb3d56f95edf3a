"""A fine-tuning's rows as OpenAI's documents: every end that a job can have, each judged by the SDK's classes."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from strongroom.edge.openai import tuned
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Event, Job
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.vault import services as vault
from tests.callers import SYSTEM, Deposit
from tests.console.test_fine_tune_pages import conversations
from tests.console.test_language_pages import language
from tests.edge.openai.oracle import fits

pytestmark = pytest.mark.slow  # on the database: left out of make fast


class Tuned:
    """One job at acme, brought to an end by hand."""

    def __init__(self, deposit: Deposit) -> None:
        self.deposit = deposit
        self.base = language(deposit)
        conversations(deposit)
        spec = {"kind": "finetune", "name": "tone", "base": "smol", "dataset": {"name": "talks"}}
        with scope.tenant(deposit.id):
            self.job = jobs.submit_plan(SYSTEM, jobs.validate(spec), metadata={"run": "7"})

    def becomes(self, state: str, **fields: Any) -> None:
        with scope.tenant(self.deposit.id):
            for name, value in {"state": state, "attempt": 1, **fields}.items():
                setattr(self.job, name, value)
            self.job.save()
            Event.objects.create(job=self.job, kind="state", data={"state": state, "attempt": self.job.attempt})

    def registers(self, *reasons: str, **card: Any) -> ModelVersion:
        with scope.tenant(self.deposit.id):
            return registry.register(
                name="tone",
                task="generation",
                artefact=vault.seal_bytes(self.deposit.id, "model", b"adapter"),
                result={"signature": {"kind": "language", "adapter": True}, "card": card},
                lineage={},
                job_id=self.job.id,
                format="lora",
                base=self.base,
                reasons=reasons,
            )

    def succeeds(self, **result: Any) -> None:
        metrics = {"train/loss": 0.5, "validation/loss": 0.75, "validation/perplexity": 2.117}
        progress = {"fraction": 1.0, "steps": 90}
        self.becomes("succeeded", finished_at=timezone.now(), result=result, metrics=metrics, progress=progress)

    @property
    def shown(self) -> FineTuningJob:
        with scope.tenant(self.deposit.id, write=False):
            found: FineTuningJob = fits(FineTuningJob, tuned.document(Job.objects.get(id=self.job.id)))
            return found

    @property
    def told(self) -> list[tuple[str, str]]:
        """Level and message of each event, oldest first."""
        with scope.tenant(self.deposit.id, write=False):
            job = Job.objects.get(id=self.job.id)
            rows = Event.objects.filter(job=job).order_by("id")
            found = [fits(FineTuningJobEvent, tuned.event(job, row)) for row in rows]
            return [(event.level, event.message) for event in found]

    @property
    def checkpoint(self) -> Any:
        with scope.tenant(self.deposit.id, write=False):
            return tuned.checkpoint(Job.objects.get(id=self.job.id))


@pytest.fixture
def found(acme: Deposit) -> Tuned:
    return Tuned(acme)


def test_a_waiting_job_says_what_it_will_do(found: Tuned) -> None:
    shown = found.shown
    assert (shown.status, shown.model, shown.training_file, shown.metadata) == (
        "queued", "smol@1", "talks@1", {"run": "7"},
    )  # fmt: skip
    assert (shown.hyperparameters.n_epochs, shown.hyperparameters.batch_size) == (3, 8)
    assert shown.hyperparameters.learning_rate_multiplier == 1
    assert (shown.fine_tuned_model, shown.finished_at, shown.error, shown.trained_tokens) == (None,) * 4
    assert found.checkpoint is None


def test_a_running_job_says_when_it_will_end(found: Tuned) -> None:
    found.becomes("running", progress={"fraction": 0.5, "eta_seconds": 60.0})
    end = found.shown.estimated_finish
    assert end is not None
    assert 50 < end - timezone.now().timestamp() <= 60


def test_a_success_names_the_adapter_its_tokens_and_its_checkpoint(found: Tuned) -> None:
    found.becomes("running")
    found.registers(tokens=150, epochs=3)
    found.succeeds(state="ready")
    shown = found.shown
    assert (shown.status, shown.fine_tuned_model, shown.trained_tokens) == ("succeeded", "tone@1", 450)
    assert found.told[1:] == [
        ("info", "Fine-tuning job started"),
        ("info", "New fine-tuned model: tone@1. Deploy it to call it: POST /api/v1/deployments"),
    ]
    checkpoint: FineTuningJobCheckpoint = fits(FineTuningJobCheckpoint, found.checkpoint)
    assert (checkpoint.step_number, checkpoint.fine_tuned_model_checkpoint) == (90, "tone@1")
    assert (checkpoint.metrics.train_loss, checkpoint.metrics.valid_loss) == (0.5, 0.75)


@pytest.mark.parametrize("card", [{}, {"tokens": "many", "epochs": 3}, {"tokens": 1.5, "epochs": 3}])
def test_tokens_that_a_card_does_not_tell_are_not_made_up(card: Any, found: Tuned) -> None:
    found.registers(**card)
    found.succeeds(state="ready")
    assert found.shown.trained_tokens is None


def test_an_adapter_that_failed_its_proof_is_a_failed_job(found: Tuned) -> None:
    found.registers("parity_failed: on row 3 llama.cpp says another token")
    found.succeeds(state="rejected")
    shown = found.shown
    assert (shown.status, shown.fine_tuned_model) == ("failed", None)
    assert shown.error is not None
    assert (shown.error.code, shown.error.message[:13]) == ("adapter_rejected", "parity_failed")
    assert found.told[-1][0] == "error"
    assert found.checkpoint is None


def test_a_failure_has_its_code_its_words_and_its_parameter(found: Tuned) -> None:
    for code, param in (("dataset_contradicts_spec", "training_file"), ("out_of_memory", None)):
        error = {"code": code, "message": "row 1 has 90 tokens", "hint": "shorten it"}
        found.becomes("failed", error=error, error_code=code, finished_at=timezone.now())
        shown = found.shown.error
        assert shown is not None
        assert (shown.code, shown.message, shown.param) == (code, "row 1 has 90 tokens; shorten it", param)
        assert found.told[-1] == ("error", "The job has failed: row 1 has 90 tokens; shorten it")


def test_a_cancelled_job_is_one(found: Tuned) -> None:
    found.becomes("cancelled", finished_at=timezone.now())
    assert found.shown.status == "cancelled"
    assert found.told[-1] == ("warn", "The job was cancelled")


def test_a_model_that_was_deleted_meanwhile_is_not_named(found: Tuned) -> None:
    version = found.registers(tokens=1, epochs=1)
    found.succeeds(state="ready")
    with scope.tenant(found.deposit.id):
        registry.delete_version(SYSTEM, version)
    assert (found.shown.status, found.shown.fine_tuned_model) == ("succeeded", None)
    assert "was deleted" in found.told[-1][1]


def test_a_job_that_lost_its_worker_says_so(found: Tuned) -> None:
    for state, attempt in (("running", 1), ("queued", 1), ("running", 2)):
        found.becomes(state, attempt=attempt)
    assert [message for _, message in found.told][1:] == [
        "Fine-tuning job started", "The job waits for a worker again", "Fine-tuning job goes on: attempt 2",
    ]  # fmt: skip

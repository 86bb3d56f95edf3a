"""Submitting, cancelling, retrying, deleting; and what is refused before a worker is taken."""

from typing import Any

import pytest

from strongroom.audit.models import Entry
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.errors import Conflict, Invalid, LimitReached, NotFound
from strongroom.jobs import endings, plans, services
from strongroom.jobs.models import Event, Job
from strongroom.jobs.states import State
from strongroom.tenants import scope
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from tests.callers import Deposit
from tests.jobs.work import actor, attempts, fresh, images, submitted, taken, training, uploaded

pytestmark = pytest.mark.slow


def refused(deposit: Deposit, document: Any) -> Invalid:
    with pytest.raises(Invalid) as caught, scope.tenant(deposit.id):
        services.submit(actor(deposit), document)
    return caught.value


def test_a_submitted_job_waits_with_every_default_filled_in(acme: Deposit, digits: DatasetVersion) -> None:
    job = fresh(submitted(acme))
    assert (job.state, job.attempt, job.kind, job.name) == (State.QUEUED, 0, "train", "digits-net")
    assert job.spec["dataset"] == {"name": "digits", "version": 1, "fingerprint": None}
    assert job.spec["train"]["loss"] == {"name": "cross_entropy"}
    assert job.spec["register"] == {"model": "digits-net", "stage": "candidate", "deploy": None}
    assert len(job.spec_sha256) == 64
    with scope.tenant(acme.id, write=False):
        assert [event.data for event in Event.objects.filter(job=job)] == [{"state": "queued", "attempt": 0}]


def test_the_spec_that_was_filled_in_is_the_spec_that_its_own_submission_gives(
    acme: Deposit, digits: DatasetVersion
) -> None:
    first = fresh(submitted(acme))
    assert fresh(submitted(acme, first.spec)).spec_sha256 == first.spec_sha256


def test_a_job_keeps_the_version_that_was_the_newest_when_it_was_submitted(
    acme: Deposit, digits: DatasetVersion
) -> None:
    job = submitted(acme)
    newer = uploaded(acme, images() + b"more")
    with scope.tenant(acme.id):
        profile = {"rows": 60, "modality": "image", "columns": [], "warnings": []}
        datasets.mark_ready(newer, profile)
    assert fresh(job).spec["dataset"]["version"] == 1
    assert fresh(submitted(acme)).spec["dataset"]["version"] == 2


def test_every_problem_of_a_spec_is_told_at_once(acme: Deposit, digits: DatasetVersion) -> None:
    document = training()
    document["train"] |= {"optimiser": {"name": "sgd"}, "optimizer": {"lr": -0.1}}
    error = refused(acme, document)
    assert (error.code, error.status) == ("invalid_spec", 422)
    problems = {problem.path: problem for problem in error.errors}
    assert problems["/train/optimiser"].hint == "did you mean 'optimizer'?"
    assert "greater" in problems["/train/optimizer/lr"].message
    assert error.detail.startswith("2 problems; the first: /train/optimi")


@pytest.mark.parametrize(
    "document", [None, [], "train", 3, {}, {"kind": "check"}, {"kind": "predict"}, {"kind": "fly"}]
)
def test_what_is_no_spec_is_refused(acme: Deposit, document: Any) -> None:
    assert refused(acme, document).code == "invalid_spec"


def test_what_is_planned_says_so(acme: Deposit, digits: DatasetVersion) -> None:
    error = refused(acme, {"kind": "optimize"})
    assert [problem.code for problem in error.errors] == ["not_implemented"]


def test_a_data_set_that_is_not_there_is_not_found(acme: Deposit) -> None:
    with pytest.raises(NotFound) as caught, scope.tenant(acme.id):
        services.submit(actor(acme), training())
    assert caught.value.errors[0].path == "/dataset"


def test_another_tenants_data_set_is_not_found(acme: Deposit, digits: DatasetVersion, globex: Deposit) -> None:
    with pytest.raises(NotFound), scope.tenant(globex.id):
        services.submit(actor(globex), training())


@pytest.mark.parametrize("failed", [False, True])
def test_a_data_set_that_is_not_ready_is_refused(acme: Deposit, failed: bool) -> None:
    version = uploaded(acme, images())
    if failed:
        with scope.tenant(acme.id):
            datasets.mark_failed(version, "check_failed", "no", None)
    assert refused(acme, training()).code == "dataset_not_ready"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"target": "colour"}, "/target"),
        ({"modality": "tabular"}, "/modality"),
        ({"dataset": {"name": "digits", "fingerprint": "sha256:" + "0" * 64}}, "/dataset/fingerprint"),
    ],
)
def test_a_data_set_that_contradicts_the_spec_is_refused_before_a_worker_is_taken(
    acme: Deposit, digits: DatasetVersion, change: dict[str, Any], path: str
) -> None:
    error = refused(acme, training() | change)
    assert (error.code, error.errors[0].path) == ("dataset_contradicts_spec", path)


def test_an_import_needs_an_uploaded_file(acme: Deposit) -> None:
    document = {"kind": "import", "name": "m", "artefact": f"art_{'0' * 26}", "model": "m", "task": "embedding"}
    with pytest.raises(NotFound) as caught, scope.tenant(acme.id):
        services.submit(actor(acme), document)
    assert caught.value.errors[0].path == "/artefact"


def test_a_spec_that_fits_into_no_packet_is_refused(acme: Deposit) -> None:
    classes = [f"class number {number}" for number in range(5000)]
    document = {"kind": "import", "name": "m", "artefact": f"art_{'0' * 26}", "model": "m", "task": "classification"}
    error = refused(acme, {**document, "classes": classes})
    assert (error.code, error.errors[0].code) == ("invalid_spec", "too_long")


def test_a_tenant_cannot_queue_without_end(acme: Deposit, digits: DatasetVersion, monkeypatch: Any) -> None:
    monkeypatch.setattr(plans, "WAITING_LIMIT", 2)
    submitted(acme)
    submitted(acme)
    with pytest.raises(LimitReached) as caught:
        submitted(acme)
    assert (caught.value.code, caught.value.status) == ("queue_full", 429)


def test_a_waiting_job_is_cancelled_at_once(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
    row = fresh(job)
    assert (row.state, row.result, row.error) == (State.CANCELLED, None, None)
    assert row.cancel_requested_at is not None
    assert row.finished_at is not None


def test_a_running_job_is_asked_to_end_and_asking_again_changes_nothing(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    for _ in range(2):
        with scope.tenant(acme.id):
            services.cancel(actor(acme), fresh(job))
    row = fresh(job)
    assert row.state == State.RUNNING
    assert row.cancel_requested_at is not None


def test_cancelling_twice_is_as_cancelling_once(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    for _ in range(2):
        with scope.tenant(acme.id):
            assert services.cancel(actor(acme), fresh(job)).state == State.CANCELLED


def test_a_job_that_has_ended_cannot_be_cancelled(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        endings.succeed(job, {"model": "m", "version": 1}, said={})
    with pytest.raises(Conflict) as caught, scope.tenant(acme.id):
        services.cancel(actor(acme), fresh(job))
    assert caught.value.code == "job_finished"


def test_cancelling_a_check_ends_the_data_sets_checking(acme: Deposit) -> None:
    version = uploaded(acme, images())
    with scope.tenant(acme.id):
        job = services.submit_check(actor(acme), version)
        services.cancel(actor(acme), job)
        version = DatasetVersion.objects.get(id=version.id)
        assert (version.state, version.error["code"]) == ("failed", "check_failed")


def test_a_retry_is_a_new_job_with_the_same_spec(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
        again = services.retry(actor(acme), Job.objects.get(id=job.id))
    again = fresh(again)
    assert (again.state, again.retry_of, again.spec) == (State.QUEUED, job.id, fresh(job).spec)
    assert again.id != job.id


def test_an_unfinished_job_can_be_neither_retried_nor_deleted(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    for act in (services.retry, services.delete):
        with pytest.raises(Conflict) as caught, scope.tenant(acme.id):
            act(actor(acme), fresh(job))
        assert caught.value.code == "job_unfinished"


def test_a_retry_whose_data_set_was_deleted_is_refused(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
        datasets.delete(actor(acme), "digits")
    with pytest.raises(NotFound), scope.tenant(acme.id):
        services.retry(actor(acme), fresh(job))


def test_a_data_set_that_an_unfinished_job_reads_cannot_be_deleted(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    with pytest.raises(Conflict) as caught, scope.tenant(acme.id):
        datasets.delete(actor(acme), "digits")
    assert caught.value.code == "in_use"
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
        datasets.delete(actor(acme), "digits")


def test_deleting_a_job_forgets_its_log_and_its_attempts(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        endings.cancel(job)
        services.delete(actor(acme), job)
    with scope.tenant(acme.id, write=False):
        assert not Job.objects.exists()
        assert not Event.objects.exists()


def test_the_checkpoints_of_a_job_are_destroyed_with_its_end(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, attempt = taken()
    with scope.tenant(acme.id):
        attempt.previous_artefact = vault.seal_bytes(acme.id, "checkpoint", b"one")
        attempt.checkpoint_artefact = vault.seal_bytes(acme.id, "checkpoint", b"two")
        attempt.save()
        endings.hand_back(job, outcome="drained")
    with scope.tenant(acme.id, write=False):
        assert Artefact.objects.filter(kind="checkpoint", state="sealed").count() == 2
    job, _ = taken()
    with scope.tenant(acme.id):
        endings.succeed(job, {"model": "m", "version": 1}, said={})
        assert not Artefact.objects.filter(kind="checkpoint", state="sealed").exists()
    assert attempts(job) == [(1, "drained"), (2, "succeeded")]


def test_who_did_what_to_a_job_is_in_the_audit_log(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
        services.retry(actor(acme), Job.objects.get(id=job.id))
        services.delete(actor(acme), Job.objects.get(id=job.id))
        entries = Entry.objects.filter(object_kind="job").order_by("id")
        assert [entry.action for entry in entries] == ["job.submit", "job.cancel", "job.retry", "job.delete"]
        assert {entry.actor_id for entry in entries} == {acme.owner.id}

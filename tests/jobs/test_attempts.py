"""Whole attempts with real processes: what they make, and how they end when they are killed, cancelled or drained."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from strongroom.datasets.models import DatasetVersion
from strongroom.deployments.models import Deployment
from strongroom.errors import NotFound, Unavailable
from strongroom.jobs import services
from strongroom.jobs.attempts import see_through
from strongroom.jobs.models import Attempt, Event, Job, LogLine
from strongroom.jobs.states import State
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.vault import keys
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from tests.callers import Deposit
from tests.jobs.work import (
    LEASE_SECONDS,
    actor,
    affine,
    attempts,
    fresh,
    images,
    submitted,
    taken,
    training,
    uploaded,
    worked,
)

pytestmark = pytest.mark.slow  # real processes

LONG = training(epochs=100_000)


def children() -> list[int]:
    """The job processes of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"training.run" in command or any(part.endswith(b"/hostile.py") for part in command):
                found.append(int(pid))
    return found


@contextmanager
def meanwhile(act: Any) -> Iterator[None]:
    """`act` in a thread beside the test."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def checkpoint_is_there(objects: Path, files: int) -> None:
    """Waits until so many files are published: the data set, then checkpoints."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if sum(1 for path in objects.glob("*/*") if path.parent.name != "tmp") >= files:
            return
        time.sleep(0.02)
    raise AssertionError("no checkpoint came")


def kill_after_a_checkpoint(home: Path) -> None:
    checkpoint_is_there(home / "objects", 2)
    for pid in children():
        os.kill(pid, signal.SIGKILL)


def sealed(deposit: Deposit) -> list[str]:
    with scope.tenant(deposit.id, write=False):
        return sorted(Artefact.objects.filter(state="sealed").values_list("kind", flat=True))


def check(deposit: Deposit, data: bytes, format: str = "npz") -> tuple[Job, DatasetVersion]:
    version = uploaded(deposit, data, format=format)
    with scope.tenant(deposit.id):
        services.submit_check(actor(deposit), version)
    job = worked()
    with scope.tenant(deposit.id, write=False):
        version = DatasetVersion.objects.select_related("dataset").get(id=version.id)
        _ = (version.profile, version.error)
    return job, version


def test_a_check_makes_the_data_set_ready(acme: Deposit) -> None:
    job, version = check(acme, images())
    assert (job.state, job.result) == (State.SUCCEEDED, {"dataset": "digits", "version": 1, "state": "ready"})
    assert (version.state, version.rows, version.modality) == ("ready", 60, "image")
    assert [column["name"] for column in version.profile["columns"]] == ["image", "label"]
    assert job.progress["fraction"] == 1.0
    assert job.usage["core_seconds"] > 0
    assert job.usage["peak_memory_bytes"] > 2**20
    assert sealed(acme) == ["data"]


def test_a_check_that_finds_a_fault_names_it(acme: Deposit) -> None:
    job, version = check(acme, b"PK\x03\x04 this is no archive")
    assert (job.state, job.error["code"]) == (State.FAILED, "check_failed")
    assert version.state == "failed"
    assert version.error["message"] == job.error["message"]
    assert version.error["code"] != "internal"


def test_a_training_ends_as_a_model_version_that_is_deployed(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme, training(register={"deploy": "live"}))
    job = worked()
    assert job.state == State.SUCCEEDED, job.error
    assert job.result == {
        "model": "digits-net",
        "version": 1,
        "state": "ready",
        "metrics": job.result["metrics"],
        "deployment": "live",
    }
    assert {"validation/accuracy", "test/loss"} <= set(job.result["metrics"])
    assert job.metrics.keys() >= {"train/loss", "validation/accuracy"}
    with scope.tenant(acme.id, write=False):
        version = ModelVersion.objects.get()
        assert version.lineage["job"] == services.document(job)["id"]
        assert (version.lineage["dataset"], version.lineage["dataset_version"]) == ("digits", 1)
        assert version.lineage["spec_sha256"] == job.spec_sha256
        assert version.lineage["code_version"].startswith("0.1.0")
        assert len(version.lineage["weights_sha256"]) == 64
        assert Deployment.objects.get().name == "live"
        epochs = [e.data["epoch"] for e in Event.objects.filter(job=job, kind="metric", data__name="train/loss")]
        assert epochs == [1, 2]
        assert LogLine.objects.filter(job=job).exists()
        last = Event.objects.filter(job=job, kind="state").latest("id")
        assert last.data == {"state": "succeeded", "attempt": 1, "result": {"model": "digits-net", "version": 1}}
    assert sealed(acme) == ["data", "model"]


def brought(deposit: Deposit, data: bytes) -> str:
    """An uploaded model file's id, as the edge leaves it."""
    with scope.tenant(deposit.id):
        upload = registry.begin_upload("net")
        upload.draft.fill(data)
        upload.draft.publish()
        return str(registry.finish_upload(actor(deposit), upload, hashlib.sha256(data).hexdigest())["artefact"])


def importing(artefact: str) -> dict[str, Any]:
    return {"kind": "import", "name": "net", "artefact": artefact, "model": "net", "task": "other"}


def test_an_import_ends_as_a_model_version_and_the_upload_is_destroyed(acme: Deposit) -> None:
    document = importing(brought(acme, affine()))
    submitted(acme, document)
    job = worked()
    assert job.state == State.SUCCEEDED, job.error
    assert (job.result["model"], job.result["version"], job.result["state"]) == ("net", 1, "ready")
    with scope.tenant(acme.id, write=False):
        version = ModelVersion.objects.get()
        assert version.signature["inputs"]
        assert version.lineage["dataset"] is None
        with pytest.raises(NotFound):
            services.retry(actor(acme), Job.objects.get(id=job.id))
    assert sealed(acme) == ["model"]


def test_an_import_of_what_is_no_model_is_refused_and_the_upload_stays(acme: Deposit) -> None:
    submitted(acme, importing(brought(acme, b"\x08\x09 no graph at all")))
    job = worked()
    assert (job.state, job.error["code"]) == (State.FAILED, "import_refused")
    assert job.error["message"]
    assert sealed(acme) == ["import"]
    with scope.tenant(acme.id):
        assert services.retry(actor(acme), Job.objects.get(id=job.id)).retry_of == job.id


def test_a_killed_training_goes_on_from_its_checkpoint_bit_for_bit(
    acme: Deposit, digits: DatasetVersion, home: Path
) -> None:
    document = training(epochs=1000)
    submitted(acme, document)
    with meanwhile(lambda: kill_after_a_checkpoint(home)):
        first = worked()
    assert first.state == State.QUEUED
    assert attempts(first) == [(1, "lost")]
    again = worked()
    assert again.state == State.SUCCEEDED, again.error
    assert (again.id, attempts(again)) == (first.id, [(1, "lost"), (2, "succeeded")])
    submitted(acme, document)
    whole = worked()
    with scope.tenant(acme.id, write=False):
        weights = [version.lineage["weights_sha256"] for version in ModelVersion.objects.order_by("number")]
        assert len(weights) == 2
        assert weights[0] == weights[1]
        told = [
            (e.data["name"], e.data["epoch"]) for e in Event.objects.filter(job=again, kind="metric").order_by("id")
        ]
        assert len(told) == len(set(told)), "an epoch was told twice"
        log = [line.text for line in LogLine.objects.filter(job=again, attempt=2)]
        assert any("goes on from epoch" in text for text in log)
    assert again.usage["core_seconds"] > 0
    assert whole.state == State.SUCCEEDED
    assert sealed(acme) == ["data", "model", "model"]


@pytest.mark.django_db(transaction=True)  # what is rolled back has no row at a real commit
def test_a_database_that_fails_while_a_checkpoint_is_kept_costs_that_checkpoint_only(
    acme: Deposit, digits: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[int] = []

    def destroy(artefact: Artefact) -> None:
        if artefact.kind == "checkpoint" and not failed:
            failed.append(Attempt.objects.get().checkpoint_step)
            raise Unavailable("the database is away", code="database_unavailable")
        real(artefact)

    real = vault.destroy
    monkeypatch.setattr(vault, "destroy", destroy)
    submitted(acme, training(epochs=2000))
    job = worked()
    assert job.state == State.SUCCEEDED, job.error
    with scope.tenant(acme.id, write=False):
        assert failed
        assert Attempt.objects.get(job=job).checkpoint_step > failed[0]


def test_a_job_that_always_crashes_has_failed_when_its_attempts_are_used_up(
    acme: Deposit, digits: DatasetVersion, home: Path
) -> None:
    submitted(acme, training(epochs=100_000, resources={"max_attempts": 1}))

    def kill() -> None:
        while not children():
            time.sleep(0.02)
        os.kill(children()[0], signal.SIGKILL)

    with meanwhile(kill):
        job = worked()
    assert (job.state, job.error["code"]) == (State.FAILED, "worker_lost")
    assert sealed(acme) == ["data"]


def test_a_job_that_is_to_be_cancelled_is_cancelled_by_its_worker(acme: Deposit, digits: DatasetVersion) -> None:
    queued = submitted(acme, LONG)
    with scope.tenant(acme.id):  # asked for while the worker claims: it finds it at its first look
        Job.objects.filter(id=queued.id).update(cancel_requested_at=timezone.now())
    job = worked()
    assert (job.state, job.result, job.error) == (State.CANCELLED, None, None)
    assert attempts(job) == [(1, "cancelled")]
    assert children() == []


def test_a_worker_that_is_told_to_stop_hands_its_job_back_with_a_checkpoint(
    acme: Deposit, digits: DatasetVersion, home: Path
) -> None:
    submitted(acme, LONG)
    stop = threading.Event()

    def stop_after_a_checkpoint() -> None:
        checkpoint_is_there(home / "objects", 2)
        stop.set()

    with meanwhile(stop_after_a_checkpoint):
        job = worked(stop)
    assert job.state == State.QUEUED
    assert attempts(job) == [(1, "drained")]
    with scope.tenant(acme.id, write=False):
        attempt = Attempt.objects.get(job=job)
        log = list(LogLine.objects.filter(job=job).order_by("id"))
        # Sealed when it was told, which is later than the last one that was due.
        assert attempt.checkpoint_artefact.state == "sealed"
        assert attempt.checkpoint_step >= job.progress["step"]
        assert "epoch" in log[-1].text
    assert sealed(acme) == ["checkpoint", "checkpoint", "data"]


def test_a_training_that_takes_too_long_has_timed_out(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme, training(epochs=100_000, resources={"max_seconds": 1}))
    job = worked()
    assert (job.state, job.error["code"]) == (State.FAILED, "timed_out")
    assert sealed(acme) == ["data"]


def test_a_data_set_whose_file_was_exchanged_is_named_and_refused(
    acme: Deposit, digits: DatasetVersion, home: Path
) -> None:
    submitted(acme)
    path = home / "objects" / str(acme.id) / str(digits.artefact_id)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    job = worked()
    assert (job.state, job.error["code"]) == (State.FAILED, "artefact_corrupt")


def test_a_data_set_whose_file_is_gone_is_corrupt(acme: Deposit, digits: DatasetVersion, home: Path) -> None:
    submitted(acme)
    (home / "objects" / str(acme.id) / str(digits.artefact_id)).unlink()
    assert worked().error["code"] == "artefact_corrupt"


def test_while_the_keys_are_away_the_job_waits(acme: Deposit, digits: DatasetVersion, home: Path) -> None:
    submitted(acme)
    keys.forget(acme.id)
    (home / "keys").rename(home / "elsewhere")
    try:
        job, attempt = taken()
        see_through(job, attempt, threading.Event(), LEASE_SECONDS)
    finally:
        (home / "elsewhere").rename(home / "keys")
    row = fresh(job)
    assert row.state == State.QUEUED
    assert row.not_before is not None
    assert attempts(row) == [(1, "drained")]


def test_a_lost_lease_kills_the_process_and_leaves_the_row_to_its_new_owner(
    acme: Deposit, digits: DatasetVersion
) -> None:
    submitted(acme, LONG)
    job, attempt = taken()
    with scope.tenant(acme.id):  # what a sweep and another worker's claim leave behind
        Job.objects.filter(id=job.id).update(fence=job.fence + 2, lease_until=timezone.now() + timedelta(minutes=1))
    see_through(job, attempt, threading.Event(), LEASE_SECONDS)
    row = fresh(job)
    assert (row.state, row.fence) == (State.RUNNING, job.fence + 2)
    assert children() == []
    assert sealed(acme) == ["data"]

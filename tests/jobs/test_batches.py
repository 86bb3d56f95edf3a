"""Batches as callers see them: what is refused, what is kept, and OpenAI's document in each state."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from openai.types import Batch as SdkBatch

from strongroom import ids
from strongroom.errors import Conflict, Invalid, LimitReached, NotFound
from strongroom.files import services as files
from strongroom.files.models import File
from strongroom.jobs import batches, endings, plans, services
from strongroom.jobs.endings import Failure
from strongroom.jobs.models import Batch, Job
from strongroom.openai import requests
from strongroom.openai.batches import BatchRequest
from strongroom.tenants import scope
from strongroom.vault.models import Artefact
from tests.callers import Deposit
from tests.edge.openai.oracle import fits
from tests.jobs.work import actor, taken

CHAT = "/v1/chat/completions"


def kept(deposit: Deposit, content: bytes = b"{}\n", purpose: files.Purpose = files.Purpose.BATCH) -> File:
    with scope.tenant(deposit.id):
        draft = files.begin(purpose)
        draft.fill(content)
        draft.publish()
        sealed = files.Sealed(draft, "in.jsonl", len(content), hashlib.sha256(content).hexdigest())
        if purpose is files.Purpose.FINE_TUNE:
            return files.add_training(actor(deposit), sealed)
        return files.add(actor(deposit), purpose, sealed)


def begun(deposit: Deposit, file: File | None = None, **changes: Any) -> Job:
    id = files.text((file or kept(deposit)).id)
    document = {"input_file_id": id, "endpoint": CHAT, "completion_window": "24h"} | changes
    with scope.tenant(deposit.id):
        return services.submit_batch(actor(deposit), requests.read(BatchRequest, document))


def shown(job: Job) -> SdkBatch:
    with scope.tenant(job.tenant_id, write=False):
        found: SdkBatch = fits(SdkBatch, services.batch_document(services.batch_of(ids.text("batch", job.id))))
        return found


def test_a_batch_waits_with_its_words_sealed(acme: Deposit) -> None:
    job = begun(acme, metadata={"secret": "sauce"})
    found = shown(job)
    assert (found.status, found.endpoint, found.metadata) == ("validating", CHAT, {"secret": "sauce"})
    assert found.request_counts is not None
    assert found.request_counts.total == 0
    with scope.tenant(acme.id, write=False):
        row = Batch.objects.filter(job=job).values("metadata").get()
    assert b"sauce" not in row["metadata"].stored


def test_each_state_of_a_batch_is_one_of_the_sdks(acme: Deposit) -> None:
    begun(acme)
    job, _ = taken()
    assert shown(job).status == "validating"
    with scope.tenant(acme.id):
        Batch.objects.filter(job=job).update(began_at=timezone.now(), total=3, completed=1, failed=1)
    assert shown(job).status == "in_progress"
    with scope.tenant(acme.id):
        Batch.objects.filter(job=job).update(finalizing_at=timezone.now())
    assert shown(job).status == "finalizing"
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
    assert shown(job).status == "cancelling"
    with scope.tenant(acme.id):
        endings.cancel(job)
    done = shown(job)
    assert done.status == "cancelled"
    assert done.cancelled_at is not None
    assert done.completed_at is None


@pytest.mark.parametrize("has_expired", [False, True])
def test_a_batch_that_ran_out_of_time_says_so(acme: Deposit, has_expired: bool) -> None:
    begun(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        Batch.objects.filter(job=job).update(has_expired=has_expired)
        endings.succeed(job, {}, said={})
    found = shown(job)
    assert found.status == ("expired" if has_expired else "completed")
    assert (found.expired_at is None, found.completed_at is None) == (not has_expired, has_expired)


def test_a_batch_that_failed_for_another_reason_says_which(acme: Deposit) -> None:
    begun(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        endings.fail(job, Failure("worker_lost", "it was lost"))
    found = shown(job)
    assert found.errors is not None
    assert found.errors.data
    assert (found.errors.data[0].code, found.errors.data[0].line) == ("worker_lost", None)


def test_a_waiting_batch_is_cancelled_at_once_and_its_file_stays(acme: Deposit) -> None:
    file = kept(acme)
    job = begun(acme, file)
    with scope.tenant(acme.id):
        with pytest.raises(Conflict):
            files.delete(actor(acme), file)
        services.cancel(actor(acme), job)
        assert shown(job).status == "cancelled"
        assert Artefact.objects.get(id=file.artefact_id).state == Artefact.State.SEALED
        files.delete(actor(acme), file)
        assert Artefact.objects.get(id=file.artefact_id).state == Artefact.State.DESTROYED
        with pytest.raises(NotFound):
            services.retry(actor(acme), batches.find(ids.text("batch", job.id)))


def test_a_retry_asks_all_lines_again(acme: Deposit) -> None:
    job = begun(acme, metadata={"a": "b"}, output_expires_after={"anchor": "created_at", "seconds": 3600})
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
        again = services.retry(actor(acme), services.find(job.id))
        assert (again.retry_of, again.spec) == (job.id, job.spec)
    assert shown(again).metadata == {"a": "b"}


def test_a_file_of_another_purpose_or_tenant_is_refused(acme: Deposit, globex: Deposit) -> None:
    learned, answered = kept(acme, purpose=files.Purpose.FINE_TUNE), kept(acme, purpose=files.Purpose.BATCH_OUTPUT)
    for file in (learned, answered):
        with pytest.raises(Invalid) as caught:
            begun(acme, file)
        assert [problem.path for problem in caught.value.errors] == ["/input_file_id"]
    with pytest.raises(NotFound):
        begun(globex, kept(acme))
    theirs = ids.text("batch", begun(globex).id)
    with scope.tenant(acme.id), pytest.raises(NotFound):
        batches.find(theirs)
    with scope.tenant(acme.id):
        assert files.training_version(files.text(learned.id)) == learned.dataset_version
        with pytest.raises(Invalid, match="fine-tune"):
            files.training_version(files.text(answered.id))
        for unknown in ("file_x", files.text(ids.new()), learned.dataset_version.dataset.name):
            with pytest.raises(NotFound):
                files.training_version(unknown)


def test_an_expired_file_is_no_file(acme: Deposit) -> None:
    file = kept(acme)
    with scope.tenant(acme.id):
        File.objects.filter(id=file.id).update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(NotFound):
        begun(acme, file)
    assert files.forget_expired() == 1
    with scope.tenant(acme.id, write=False):
        assert not File.objects.filter(id=file.id).exists()


def test_a_file_that_is_read_outlives_its_expiry(acme: Deposit) -> None:
    file = kept(acme)
    begun(acme, file)
    with scope.tenant(acme.id):
        File.objects.filter(id=file.id).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert files.forget_expired() == 0


def test_a_full_queue_takes_no_batch(acme: Deposit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "WAITING_LIMIT", 1)
    begun(acme)
    with pytest.raises(LimitReached):
        begun(acme)


def test_a_key_without_the_right_to_ask_retries_no_batch(acme: Deposit) -> None:
    job = begun(acme)
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
    id = ids.text("job", job.id)
    assert acme.key("jobs:write").post(f"/api/v1/jobs/{id}/retry", {}).status_code == 403
    assert acme.key("jobs:write", "predict").post(f"/api/v1/jobs/{id}/retry", {}).status_code == 202

"""Idempotency-Key: a repeat gets the first answer; nothing is done twice, nothing is kept of a failure."""

import json
import threading
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, connections
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from strongroom import ids
from strongroom.access.models import ApiKey
from strongroom.errors import Conflict, Malformed
from strongroom.idempotency import services
from strongroom.idempotency.models import Answer
from strongroom.idempotency.services import Kept, Taken, begin, fingerprint, forget_expired
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Job
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from tests.callers import Deposit, deposit
from tests.console.rows import ready_dataset, training

KEYS = "/api/v1/keys"
BODY = {"name": "ci", "scopes": ["predict"]}
WHO = ids.new()


def take(tenant_id: UUID, key: str = "k", mark: bytes = b"m" * 32) -> Kept | Taken:
    return begin(tenant_id, WHO, "/api/v1/jobs", key, mark)


def done(tenant_id: UUID, key: str = "k", mark: bytes = b"m" * 32, body: bytes | None = b'{"id": "job_1"}') -> None:
    taken = take(tenant_id, key, mark)
    assert isinstance(taken, Taken)
    with scope.tenant(tenant_id):
        taken.finish(202, {"Location": "/api/v1/jobs/job_1", "Content-Type": "application/json", "Date": "x"}, body)


# --- the function door


def test_a_repeat_gets_the_first_answer(acme: Deposit) -> None:
    done(acme.id)
    for _ in range(2):
        again = take(acme.id)
        assert again == Kept(
            202, {"Location": "/api/v1/jobs/job_1", "Content-Type": "application/json"}, b'{"id": "job_1"}'
        )


def test_while_the_first_runs_a_repeat_is_told_to_wait(acme: Deposit) -> None:
    assert isinstance(take(acme.id), Taken)
    with pytest.raises(Conflict) as refused:
        take(acme.id)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("idempotency_running", 1)


def test_another_body_is_a_conflict_running_or_done(acme: Deposit) -> None:
    taken = take(acme.id)
    assert isinstance(taken, Taken)
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            take(acme.id, mark=b"n" * 32)
        assert refused.value.code == "idempotency_conflict"
        with scope.tenant(acme.id):
            taken.finish(202, {}, b"{}") if Answer.objects.get().state == "running" else None


def test_a_failure_frees_the_key_for_a_corrected_request(acme: Deposit) -> None:
    taken = take(acme.id)
    assert isinstance(taken, Taken)
    taken.release()
    assert isinstance(take(acme.id, mark=b"n" * 32), Taken)


def test_releasing_after_the_end_changes_nothing(acme: Deposit) -> None:
    taken = take(acme.id)
    assert isinstance(taken, Taken)
    with scope.tenant(acme.id):
        taken.finish(202, {}, b"{}")
    taken.release()
    assert isinstance(take(acme.id), Kept)


def test_principals_routes_and_tenants_have_keys_of_their_own(acme: Deposit, globex: Deposit) -> None:
    done(acme.id)
    assert isinstance(begin(acme.id, ids.new(), "/api/v1/jobs", "k", b"m" * 32), Taken)
    assert isinstance(begin(acme.id, WHO, "/api/v1/deployments", "k", b"m" * 32), Taken)
    assert isinstance(begin(globex.id, ids.new(), "/api/v1/jobs", "k", b"m" * 32), Taken)


def test_a_very_long_route_is_a_route(acme: Deposit) -> None:
    route = "/api/v1/deployments/" + "a" * 200
    assert isinstance(begin(acme.id, WHO, route, "k", b"m" * 32), Taken)
    assert isinstance(begin(acme.id, WHO, route + "b", "k", b"m" * 32), Taken)


def test_what_a_dead_process_took_is_free_again_and_the_dead_cannot_finish(acme: Deposit) -> None:
    dead = take(acme.id)
    assert isinstance(dead, Taken)
    long_ago = timezone.now() - timedelta(seconds=services.TAKEN_SECONDS + 1)
    with scope.tenant(acme.id):
        Answer.objects.update(created_at=long_ago)
    assert isinstance(take(acme.id), Taken)
    with scope.tenant(acme.id), pytest.raises(Conflict):
        dead.finish(202, {}, b"{}")
    dead.release()
    with pytest.raises(Conflict):
        take(acme.id)


def test_an_answer_is_kept_for_a_day(acme: Deposit) -> None:
    done(acme.id)
    done(acme.id, key="younger")
    with scope.tenant(acme.id):
        first = Answer.objects.order_by("id")[0]
        assert timedelta(hours=23) < first.expires_at - timezone.now() <= timedelta(hours=24)
        first.expires_at = timezone.now()
        first.save()
    assert isinstance(take(acme.id), Taken)
    assert isinstance(take(acme.id, key="younger"), Kept)


def test_expired_answers_are_swept(acme: Deposit, globex: Deposit) -> None:
    for tenant in (acme, globex):
        begin(tenant.id, ids.new(), "/", "k", b"m" * 32)
    with scope.operator("test"):
        Answer.objects.filter(tenant_id=globex.id).update(expires_at=timezone.now())
    assert forget_expired() == 1
    assert forget_expired() == 0


def test_a_kept_answer_is_sealed(acme: Deposit) -> None:
    done(acme.id, body=b'{"marker": "7f3a-in-the-clear"}')
    with connection.cursor() as cursor:
        cursor.execute("SELECT answer FROM idempotency_answer")
        (stored,) = cursor.fetchone()
    assert b"7f3a-in-the-clear" not in bytes(stored)
    kept = take(acme.id)
    assert isinstance(kept, Kept)
    assert b"7f3a-in-the-clear" in kept.body


@given(st.text(max_size=300).filter(lambda text: not (1 <= len(text) <= 255 and all("!" <= c <= "~" for c in text))))
def test_a_key_that_is_no_visible_ascii_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        take(WHO, key=text)
    assert refused.value.code == "malformed_header"


def test_a_fingerprint_covers_method_address_and_body() -> None:
    marks = {fingerprint(m, p, b) for m in ("POST", "PUT") for p in ("/a", "/a?dry_run=1") for b in (b"", b"{}")}
    assert len(marks) == 8


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_takes_the_key() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("the tests' SQLite lives in memory, where threads share a lock; the servers' run has this one")
    tenant_id = deposit("many").id
    found: list[str] = []

    def call() -> None:
        try:
            found.append(type(take(tenant_id)).__name__)
        except Conflict as refused:
            found.append(refused.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["Taken"] + ["idempotency_running"] * 7


# --- by HTTP, with keys


def test_a_key_is_made_once_and_its_secret_is_not_kept(acme: Deposit) -> None:
    made = acme.api.post(KEYS, BODY, Idempotency_Key="one")
    assert made.status_code == 201
    again = acme.api.post(KEYS, BODY, Idempotency_Key="one")
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_secret")
    assert made["Location"] in again.json()["detail"]
    assert made.json()["secret"] not in again.content.decode()
    with scope.tenant(acme.id):
        assert ApiKey.objects.filter(name="ci").count() == 1
        answer = Answer.objects.get()
        assert answer.answer is None
        assert made.json()["secret"] not in json.dumps(answer.headers)


def test_another_body_is_a_409(acme: Deposit) -> None:
    acme.api.post(KEYS, BODY, Idempotency_Key="one")
    answer = acme.api.post(KEYS, BODY | {"name": "other"}, Idempotency_Key="one")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")


def test_a_refused_request_may_be_corrected_under_its_key(acme: Deposit) -> None:
    assert acme.api.post(KEYS, BODY | {"scopes": ["root"]}, Idempotency_Key="one").status_code == 422
    assert acme.api.post(KEYS, BODY, Idempotency_Key="one").status_code == 201


def test_a_malformed_key_is_a_400(acme: Deposit) -> None:
    for key in ("", "a b", "é", "x" * 256):
        answer = acme.api.post(KEYS, BODY, Idempotency_Key=key)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_header")


def test_two_callers_may_use_the_same_key(acme: Deposit) -> None:
    other = acme.key("keys:write", "predict")
    assert acme.api.post(KEYS, BODY, Idempotency_Key="one").status_code == 201
    assert other.post(KEYS, BODY, Idempotency_Key="one").status_code == 201


def test_an_answer_that_cannot_be_kept_undoes_the_work(acme: Deposit, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_over(*args: object) -> None:
        raise Conflict("another took the key over", code="idempotency_running")

    with monkeypatch.context() as patched:
        patched.setattr(Taken, "finish", taken_over)
        answer = acme.api.post(KEYS, BODY, Idempotency_Key="one")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_running")
    with scope.tenant(acme.id):
        assert not ApiKey.objects.filter(name="ci").exists()
    assert acme.api.post(KEYS, BODY, Idempotency_Key="one").status_code == 201


def test_an_answer_given_again_is_the_first_and_kept_by_no_cache(acme: Deposit) -> None:
    with scope.tenant(acme.id):
        dataset = ready_dataset(Actor("member", acme.owner.id), "digits", ["0", "1"])
        retried = jobs.submit(Actor("member", acme.owner.id), training("lenet", dataset.dataset.name))
        Job.objects.filter(id=retried.id).update(state="failed")
    path = f"/api/v1/jobs/{ids.text('job', retried.id)}/retry"
    first, again = (acme.api.post(path, {}, Idempotency_Key="one") for _ in range(2))
    assert (again.status_code, again.content) == (first.status_code, first.content) == (202, first.content)
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert (again["Location"], again["Cache-Control"]) == (first["Location"], "no-store")


def test_rotation_is_once_too(acme: Deposit) -> None:
    acme.key("predict")
    id = acme.api.get(KEYS).json()["data"][0]["id"]
    assert acme.api.post(f"{KEYS}/{id}/rotate", {}, Idempotency_Key="one").status_code == 201
    assert acme.api.post(f"{KEYS}/{id}/rotate", {}, Idempotency_Key="one").json()["code"] == "idempotency_secret"


def test_other_methods_and_views_ignore_the_header(acme: Deposit) -> None:
    for _ in range(2):
        assert acme.api.get(KEYS, Idempotency_Key="one").status_code == 200
    with scope.tenant(acme.id):
        assert not Answer.objects.exists()

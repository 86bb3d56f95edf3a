"""A worker whose lease was taken writes nothing more, and nothing ends twice."""

import threading
import time
from datetime import timedelta

import pytest

from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import endings
from strongroom.jobs.lease import LOOK_SECONDS, RENEW_SECONDS, Lease
from strongroom.jobs.models import Event, Job
from strongroom.jobs.moves import Moved, NotAllowed, move, write
from strongroom.jobs.states import State
from strongroom.jobs.sweep import take_lost
from strongroom.tenants import scope
from tests.callers import Deposit
from tests.jobs.work import attempts, expired, fresh, submitted, taken

RESULT = {"model": "m", "version": 1}


def second_attempt(deposit: Deposit) -> tuple[Job, Job]:
    """One job as its lost worker and as its new worker know it."""
    submitted(deposit)
    old, _ = taken()
    expired(old)
    take_lost()
    new, _ = taken()
    return old, new


def test_a_new_attempt_has_a_higher_fence(acme: Deposit, digits: DatasetVersion) -> None:
    old, new = second_attempt(acme)
    assert new.id == old.id
    assert new.fence > old.fence
    assert attempts(new) == [(1, "lost"), (2, None)]


def test_the_lost_worker_cannot_renew_or_report(acme: Deposit, digits: DatasetVersion) -> None:
    old, _ = second_attempt(acme)
    with pytest.raises(Moved), scope.tenant(acme.id):
        write(old, progress={"fraction": 0.5})


def test_the_lost_worker_cannot_end_the_job(acme: Deposit, digits: DatasetVersion) -> None:
    old, new = second_attempt(acme)
    with pytest.raises(Moved), scope.tenant(acme.id):
        endings.succeed(old, RESULT, said={})
    with pytest.raises(Moved), scope.tenant(acme.id):
        endings.fail(old, endings.WORKER_LOST)
    with pytest.raises(Moved), scope.tenant(acme.id):
        endings.hand_back(old, outcome="drained")
    assert fresh(new).state == State.RUNNING
    assert attempts(new) == [(1, "lost"), (2, None)]


def test_the_lease_is_kept_beside_work_that_takes_longer(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    lease = Lease(job, threading.Event(), lease_seconds=6)
    until = fresh(job).lease_until
    # The sleeps are the work: what takes longer than a lease is renewed, or looked at.
    assert lease.beside(lambda: time.sleep(2 * RENEW_SECONDS + 0.5) or "done") == "done"
    assert until is not None
    assert fresh(job).lease_until >= until + timedelta(seconds=1.5 * RENEW_SECONDS)


def test_a_lost_lease_is_known_beside_work(acme: Deposit, digits: DatasetVersion) -> None:
    old, _ = second_attempt(acme)
    with pytest.raises(Moved):
        Lease(old, threading.Event(), lease_seconds=6).beside(lambda: time.sleep(2 * LOOK_SECONDS))


def test_a_job_succeeds_once(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    same = fresh(job)
    with scope.tenant(acme.id):
        endings.succeed(job, RESULT, said=RESULT)
    with pytest.raises(Moved), scope.tenant(acme.id):
        endings.succeed(same, {"model": "m", "version": 2}, said={})
    with pytest.raises(NotAllowed), scope.tenant(acme.id):
        endings.succeed(job, RESULT, said={})
    with scope.tenant(acme.id, write=False):
        ends = Event.objects.filter(job=job, kind="state", data__state="succeeded")
        assert [event.data["result"] for event in ends] == [RESULT]
    assert fresh(job).result == RESULT


def test_what_a_lost_worker_wrote_in_its_last_transaction_is_undone(acme: Deposit, digits: DatasetVersion) -> None:
    old, new = second_attempt(acme)

    def end() -> None:
        with scope.tenant(acme.id):
            Event.objects.create(job=old, kind="metric", data={"name": "train/loss", "value": 1.0})
            endings.succeed(old, RESULT, said={})

    with pytest.raises(Moved):
        end()
    with scope.tenant(acme.id, write=False):
        assert not Event.objects.filter(job=new, kind="metric").exists()


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("to", list(State))
def test_a_terminal_state_never_changes(acme: Deposit, digits: DatasetVersion, end: State, to: State) -> None:
    submitted(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        move(job, end)
    with pytest.raises(NotAllowed), scope.tenant(acme.id):
        move(job, to)

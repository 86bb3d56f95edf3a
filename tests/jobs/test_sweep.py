"""What the sweep does though nobody asks."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import services, sweep
from strongroom.jobs.models import Job, Lease
from strongroom.jobs.states import State
from strongroom.tenants import scope
from tests.callers import Deposit
from tests.jobs.work import actor, attempts, expired, fresh, submitted, taken, training, uploaded


def test_a_job_whose_lease_runs_is_left_alone(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    assert sweep.take_lost() == 0
    assert fresh(job).state == State.RUNNING


def test_a_lost_job_is_queued_again_at_once(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    expired(job)
    assert sweep.take_lost() == 1
    row = fresh(job)
    assert (row.state, row.lease_until, row.worker) == (State.QUEUED, None, None)
    assert attempts(job) == [(1, "lost")]
    assert taken()[0].attempt == 2


def test_when_the_attempts_are_used_up_the_job_has_failed(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme, training(resources={"max_attempts": 2}))
    for _ in range(2):
        job, _ = taken()
        expired(job)
        sweep.take_lost()
    row = fresh(job)
    assert (row.state, row.error_code) == (State.FAILED, "worker_lost")
    assert row.error["code"] == "worker_lost"
    assert attempts(job) == [(1, "lost"), (2, "lost")]


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
    expired(job)
    sweep.take_lost()
    assert fresh(job).state == State.CANCELLED


def test_a_data_set_whose_check_is_lost_for_good_does_not_check_for_ever(acme: Deposit) -> None:
    version = uploaded(acme, b"a,label\n1,x\n", format="csv")
    with scope.tenant(acme.id):
        services.submit_check(actor(acme), version)
    for _ in range(3):
        job, _ = taken()
        expired(job)
        sweep.take_lost()
    with scope.tenant(acme.id, write=False):
        version = DatasetVersion.objects.get(id=version.id)
        assert (version.state, version.error["code"]) == ("failed", "worker_lost")


def test_one_of_two_schedulers_acts(db: None) -> None:
    one, other = uuid4(), uuid4()
    assert [sweep.hold(one), sweep.hold(other), sweep.hold(one)] == [True, False, True]


def test_when_a_scheduler_is_gone_another_acts(db: None) -> None:
    one, other = uuid4(), uuid4()
    assert sweep.hold(one)
    Lease.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert [sweep.hold(other), sweep.hold(one)] == [True, False]


def test_a_chore_that_fails_does_not_stop_the_others(db: None) -> None:
    done: list[str] = []

    def broken() -> None:
        raise ValueError("a tenant's secret")

    assert sweep.Sweeper((0.0, broken), (0.0, lambda: done.append("ran"))).tick()
    assert done == ["ran"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_prediction_expires(acme: Deposit, hours: int) -> None:
    with scope.tenant(acme.id):
        job = Job.objects.create(
            kind="predict",
            name="digits",
            state=State.SUCCEEDED,
            result={"predictions": [{"label": "7"}]},
            expires_at=timezone.now() + timedelta(hours=hours),
        )
    sweep.expire()
    assert (fresh(job).result is None) == (hours < 0)

"""Who is next: fair between tenants, by priority and age, within the tenants' limits."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import services
from strongroom.jobs.claim import claim
from strongroom.jobs.models import Job
from strongroom.jobs.states import State
from strongroom.tenants import scope
from strongroom.tenants.models import Tenant, TenantState
from tests.callers import Deposit
from tests.jobs.work import TAKER, actor, ready_dataset, submitted, taken, training, uploaded

SHORT = replace(TAKER, worker="node1-cpu-short", short_only=True)


def limited(deposit: Deposit, running: int) -> None:
    Tenant.objects.filter(id=deposit.id).update(limits={"max_running_jobs": running})


def test_a_claim_makes_the_job_running_under_a_lease_a_fence_and_an_attempt(
    acme: Deposit, digits: DatasetVersion
) -> None:
    submitted(acme)
    job, attempt = taken()
    assert (job.state, job.attempt, job.fence, job.worker) == (State.RUNNING, 1, 1, "node1-cpu-1")
    assert job.started_at is not None
    assert timezone.now() < job.lease_until <= timezone.now() + timedelta(seconds=7)
    assert (attempt.number, attempt.worker, attempt.outcome) == (1, "node1-cpu-1", None)


def test_nothing_waits_nothing_is_claimed(acme: Deposit) -> None:
    assert claim(TAKER) is None


def test_a_job_is_claimed_once(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    taken()
    assert claim(TAKER) is None


def test_of_one_tenant_the_higher_priority_goes_first_then_the_older(acme: Deposit, digits: DatasetVersion) -> None:
    for name, priority in (("first", 0), ("second", 0), ("urgent", 5)):
        submitted(acme, training(name, resources={"priority": priority}))
    assert [taken()[0].name for _ in range(3)] == ["urgent", "first", "second"]


def test_a_tenant_with_fewer_running_jobs_goes_first(acme: Deposit, digits: DatasetVersion, globex: Deposit) -> None:
    ready_dataset(globex)
    for name in ("a1", "a2", "a3"):
        submitted(acme, training(name, resources={"priority": 9}))
    submitted(globex, training("b1"))
    assert [taken()[0].name for _ in range(4)] == ["a1", "b1", "a2", "a3"]


@pytest.mark.parametrize("running", [1, 2])
def test_over_max_running_jobs_a_training_waits(acme: Deposit, digits: DatasetVersion, running: int) -> None:
    limited(acme, running)
    for number in range(3):
        submitted(acme, training(f"job{number}"))
    for _ in range(running):
        taken()
    assert claim(TAKER) is None


def test_a_tenant_at_its_limit_holds_up_nobody_else(acme: Deposit, digits: DatasetVersion, globex: Deposit) -> None:
    ready_dataset(globex)
    limited(acme, 1)
    for name in ("a1", "a2"):
        submitted(acme, training(name, resources={"priority": 9}))
    submitted(globex, training("b1"))
    assert {taken()[0].name for _ in range(2)} == {"a1", "b1"}
    assert claim(TAKER) is None


def test_a_check_is_not_held_up_by_the_limit_of_running_jobs(acme: Deposit, digits: DatasetVersion) -> None:
    limited(acme, 1)
    submitted(acme)
    submitted(acme, training("waits"))
    version = uploaded(acme, b"a,label\n1,x\n", "table", "csv")
    with scope.tenant(acme.id):
        services.submit_check(actor(acme), version)
    assert {taken()[0].kind for _ in range(2)} == {"train", "check"}


def test_the_short_slot_takes_no_training(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    assert claim(SHORT) is None
    version = uploaded(acme, b"a,label\n1,x\n", "table", "csv")
    with scope.tenant(acme.id):
        services.submit_check(actor(acme), version)
    assert taken(SHORT)[0].kind == "check"


def test_a_worker_takes_from_its_own_queues_only(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    assert claim(replace(TAKER, queues=("gpu",))) is None
    assert claim(replace(TAKER, queues=("gpu", "cpu"))) is not None


def test_a_job_waits_until_its_not_before(acme: Deposit, digits: DatasetVersion) -> None:
    job = submitted(acme)
    with scope.tenant(acme.id):
        Job.objects.filter(id=job.id).update(not_before=timezone.now() + timedelta(minutes=1))
    assert claim(TAKER) is None
    with scope.tenant(acme.id):
        Job.objects.filter(id=job.id).update(not_before=timezone.now() - timedelta(seconds=1))
    assert taken()[0].id == job.id


@pytest.mark.parametrize("state", [TenantState.SUSPENDED, TenantState.SHREDDING])
def test_a_tenant_that_is_not_active_starts_nothing(acme: Deposit, digits: DatasetVersion, state: TenantState) -> None:
    submitted(acme)
    Tenant.objects.filter(id=acme.id).update(state=state)
    assert claim(TAKER) is None

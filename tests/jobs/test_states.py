"""Any order of submitting, claiming, losing, ending and cancelling keeps the job's promises (a state machine)."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from strongroom.datasets.models import DatasetVersion
from strongroom.errors import Conflict
from strongroom.jobs import endings, services
from strongroom.jobs.claim import claim
from strongroom.jobs.models import Attempt, Event, Job
from strongroom.jobs.moves import Moved, write
from strongroom.jobs.states import ALLOWED, TERMINAL, State
from strongroom.jobs.sweep import take_lost
from strongroom.tenants import scope
from tests.callers import Deposit
from tests.depth import examples
from tests.jobs.work import TAKER, actor, expired, submitted, training

pytestmark = pytest.mark.slow


class Life(RuleBasedStateMachine):
    """One job at a time and every worker that ever claimed it, the lost ones too, which go on acting."""

    deposit: Deposit

    def __init__(self) -> None:
        super().__init__()
        self.job = submitted(self.deposit, training(resources={"max_attempts": 2}))
        self.workers: list[Job] = []
        self.ended: dict[str, object] | None = None

    @rule()
    def a_worker_claims(self) -> None:
        if (taken := claim(TAKER)) is not None:
            assert taken[0].id == self.job.id
            self.workers.append(taken[0])

    @rule()
    def the_lease_runs_out(self) -> None:
        if self.row().state == State.RUNNING:
            expired(self.job)
            take_lost()

    @rule()
    def somebody_cancels(self) -> None:
        with contextlib.suppress(Conflict), scope.tenant(self.deposit.id):
            services.cancel(actor(self.deposit), Job.objects.get(id=self.job.id))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 9), what=st.sampled_from(["succeed", "fail", "cancel", "drain", "crash", "report"]))
    def a_worker_acts(self, which: int, what: str) -> None:
        worker = self.workers[which % len(self.workers)]
        if worker.state != State.RUNNING:
            return  # it knows itself that its attempt has ended
        before = self.row()
        ours = before.fence == worker.fence and before.state == State.RUNNING
        try:
            with scope.tenant(self.deposit.id):
                worker.cancel_requested_at = before.cancel_requested_at
                act(worker, what)
        except Moved:
            assert not ours, "the claim holds and the write was refused"
            self.workers.remove(worker)
        else:
            assert ours, "a write went through without the claim"

    @invariant()
    def the_row_is_whole(self) -> None:
        row = self.row()
        with scope.tenant(self.deposit.id, write=False):
            attempts = list(Attempt.objects.filter(job=row).order_by("number"))
            states = list(Event.objects.filter(job=row, kind="state").order_by("id").values_list("data", flat=True))
            result, error = row.result, row.error
        assert [attempt.number for attempt in attempts] == list(range(1, row.attempt + 1))
        assert [attempt.ended_at is None for attempt in attempts[:-1]] == [False] * len(attempts[:-1])
        assert (row.state == State.RUNNING) == any(attempt.ended_at is None for attempt in attempts)
        assert (row.lease_until is not None) == (row.state == State.RUNNING)
        assert (row.finished_at is not None) == (row.state in TERMINAL)
        assert (result is not None) == (row.state == State.SUCCEEDED)
        assert (error is not None) == (row.state == State.FAILED)
        assert sum(attempt.outcome == "lost" for attempt in attempts) <= row.max_attempts
        walked = [State(data["state"]) for data in states]
        assert walked[0] == State.QUEUED
        assert walked[-1] == row.state
        assert all(to in ALLOWED[at] for at, to in itertools.pairwise(walked))

    @invariant()
    def a_terminal_row_stays_as_it_is(self) -> None:
        row = self.row()
        if row.state in TERMINAL:
            with scope.tenant(self.deposit.id, write=False):
                now = {"state": row.state, "result": row.result, "error": row.error, "at": row.finished_at}
            assert self.ended in (None, now)
            self.ended = now

    def row(self) -> Job:
        with scope.tenant(self.deposit.id, write=False):
            return Job.objects.get(id=self.job.id)

    def teardown(self) -> None:
        with scope.tenant(self.deposit.id):
            Job.objects.filter(id=self.job.id).delete()


def act(job: Job, what: str) -> None:
    if what == "report":
        write(job, progress={"fraction": 0.5})
    elif what == "succeed":
        endings.succeed(job, {"model": "m", "version": 1}, said={})
    elif what == "fail":
        endings.fail(job, endings.Failure("diverged", "the loss became NaN"))
    elif what == "cancel":
        endings.cancel(job)
    elif what == "drain":
        endings.hand_back(job, outcome="drained")
    else:
        endings.lost(job)


@pytest.mark.timeout(600)
def test_a_jobs_life_in_any_order(acme: Deposit, digits: DatasetVersion) -> None:
    Life.deposit = acme
    quick = settings(
        max_examples=examples(12),
        stateful_step_count=15,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(Life, settings=quick)  # type: ignore[no-untyped-call]  # hypothesis has no types here

"""A job's process or its worker is lost, frozen or told to stop: the job goes on from its checkpoint and ends once."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.faults.stand import Stand, each_time
from tests.journeys import lives, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@each_time
def test_a_killed_job_process_is_followed_by_another(stand: Stand, unbroken: dict[str, Any], time_number: int) -> None:
    loss = stand.running(time_number)
    loss.at = stand.kill("job")
    stand.went_on(loss, "lost", unbroken)


@each_time
def test_a_killed_worker_loses_no_job(stand: Stand, unbroken: dict[str, Any], time_number: int) -> None:
    loss = stand.running(time_number)
    loss.at = stand.kill("worker")
    assert not lives(loss.processes[0]), "the job's process outlived its worker"
    stand.went_on(loss, "lost", unbroken)


@each_time
def test_a_worker_told_to_stop_hands_its_job_back(stand: Stand, unbroken: dict[str, Any], time_number: int) -> None:
    loss = stand.running(time_number)
    worker = stand.pid("worker")
    loss.at = stand.kill("worker", signal.SIGTERM)
    until(lambda: not lives(worker), 15)
    # Sealed at the stop: nothing since the last checkpoint is computed again.
    loss.step = stand.attempts(loss.job)[0][2] or 0
    stand.went_on(loss, "drained", unbroken)


@each_time
def test_a_frozen_worker_writes_nothing_once_its_job_is_anothers(
    stand: Stand, unbroken: dict[str, Any], time_number: int
) -> None:
    loss = stand.running(time_number)
    worker, process = stand.pid("worker"), loss.processes[0]
    for pid in (worker, process):  # at once: a second worker takes longer to start than the job may take to end
        os.kill(pid, signal.SIGSTOP)
    try:
        stand.node.start("worker:2")
        until(lambda: len(stand.attempts(loss.job)) == 2, 20)
    finally:
        for pid in (worker, process):
            os.kill(pid, signal.SIGCONT)
    try:
        until(lambda: not lives(process), 15)
        done = stand.succeeded(loss.job)
        assert [one[:2] for one in stand.attempts(loss.job)] == [(1, "lost"), (2, "succeeded")]
        stand.once(done, unbroken)
        assert lives(worker)
    finally:
        stand.node.stop("worker:2")


def test_a_job_whose_attempts_are_used_up_fails_and_says_so(stand: Stand) -> None:
    loss = stand.running(0, resources={"max_attempts": 1})
    stand.kill("job")
    failed = stand.ended(loss.job)
    assert (failed["state"], failed["error"]["code"], failed["result"]) == ("failed", "worker_lost", None)
    assert failed["error"]["hint"]
    assert stand.rows("SELECT count(*) FROM vault_artefact WHERE kind = 'checkpoint' AND state = 'sealed'") == [(0,)]

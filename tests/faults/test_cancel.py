"""Cancelling a running job ends it and its process within a second, even where the process does not listen."""

from __future__ import annotations

import os
import signal

import pytest

from strongroom import ids
from tests.faults.stand import CANCEL_SECONDS, Stand, each_time
from tests.journeys import lives, promised

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def cancelled(stand: Stand, job: str) -> None:
    answer = stand.post(f"/api/v1/jobs/{job}/cancel")
    assert answer.status == 202
    assert answer.json["cancel_requested_at"] is not None
    ended = stand.ended(job)
    assert (ended["state"], ended["result"], ended["error"]) == ("cancelled", None, None)
    query = "SELECT cancel_requested_at, finished_at FROM jobs_job WHERE id = %s"
    [(requested_at, finished_at)] = stand.rows(query, ids.parse("job", job))
    assert (finished_at - requested_at).total_seconds() <= promised(CANCEL_SECONDS)
    assert stand.attempts(job)[-1][1] == "cancelled"
    assert stand.rows("SELECT count(*) FROM vault_artefact WHERE kind = 'checkpoint' AND state = 'sealed'") == [(0,)]


@each_time
def test_a_running_job_is_cancelled(stand: Stand, time_number: int) -> None:
    loss = stand.running(time_number)
    cancelled(stand, loss.job)
    assert not lives(loss.processes[0])


@each_time
def test_a_job_whose_process_hangs_is_cancelled(stand: Stand, time_number: int) -> None:
    loss = stand.running(time_number)
    os.kill(loss.processes[0], signal.SIGSTOP)
    cancelled(stand, loss.job)
    assert not lives(loss.processes[0])

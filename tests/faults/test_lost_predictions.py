"""Predictions over a whole data set while the cell, the job's process or the worker is killed: one output, in order."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import pytest

from strongroom import ids
from tests.faults.stand import Stand, each_time
from tests.journeys import lines, table, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROWS = 20_000


@pytest.fixture(scope="module")
def whole(made: tuple[Stand, dict[str, Any]]) -> list[Any]:
    """What the data set's rows are predicted as, without a fault."""
    stand = made[0]
    stand.deposit("many", table(ROWS, seed=1))
    return downloaded(stand, finished(stand, asked(stand)))


def asked(stand: Stand) -> str:
    answer = stand.post("/api/v1/predictions", {"deployment": "weather", "dataset": "many@1"})
    assert answer.status == 202, answer.body
    return str(answer.json["id"])


def finished(stand: Stand, id: str) -> Any:
    def read() -> Any:
        found = stand.get(f"/api/v1/predictions/{id}", Prefer="wait=10").json
        return found if found["finished_at"] else None

    found = until(read, 90)
    assert found["state"] == "succeeded", (found, stand.logs())
    assert found["output"]["rows"] == ROWS
    assert found["progress"]["fraction"] == 1.0
    return found


def downloaded(stand: Stand, prediction: Any) -> list[Any]:
    answer = stand.get(prediction["output"]["download"])
    assert answer.status == 200, answer.body
    return lines(answer.body)


@pytest.mark.parametrize("name", ["cell", "job", "worker"])
@each_time
def test_what_was_asked_is_answered_once(stand: Stand, whole: list[Any], name: str, time_number: int) -> None:
    cell = stand.pid("cell")
    os.kill(cell, signal.SIGSTOP)  # so that the work is in its middle, however quick the machine
    try:
        id = asked(stand)
        job = ids.parse("pred", id)
        until(lambda: stand.rows("SELECT 1 FROM jobs_job WHERE id = %s AND device IS NOT NULL", job), 60)
        time.sleep(0.3 + 0.05 * time_number)
        stand.kill(name)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(cell, signal.SIGCONT)
    assert downloaded(stand, finished(stand, id)) == whole
    mine = "SELECT count(*) FROM jobs_attempt WHERE job_id = %s"
    if name == "cell":
        assert stand.pid("cell") != cell
    else:
        assert stand.rows(mine, job)[0][0] == 2
    outputs = stand.rows("SELECT count(*) FROM vault_artefact WHERE kind = 'output' AND state = 'sealed'")
    kept = stand.rows("SELECT count(*) FROM jobs_job WHERE kind = 'predict' AND output_artefact_id IS NOT NULL")
    assert outputs == kept

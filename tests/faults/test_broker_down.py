"""Redis is killed and comes back: nothing waits for it, nothing is lost, what runs goes on."""

from __future__ import annotations

import time

import pytest

from tests.faults.stand import BACK_SECONDS, Stand, each_time
from tests.journeys import promised, training, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@each_time
def test_work_is_taken_in_and_done_though_the_broker_is_away(stand: Stand, time_number: int) -> None:
    if stand.broker is None:
        pytest.skip("embedded mode has files in place of a broker")
    worker = stand.pid("worker")
    before = stand.running(time_number)
    stand.broker.kill()
    try:
        health = stand.get("/api/v1/health/ready", key=None)
        assert health.status == 200, "predictions are served: the node is ready"
        assert health.json["checks"]["broker"].startswith("down")
        answer = stand.post("/api/v1/jobs", training(name="in-the-dark", epochs=2), timeout=5)
        assert answer.status == 202
        assert stand.predict("weather", timeout=5).status == 200
    finally:
        stand.broker.start()
    back = time.time()
    until(lambda: stand.attempts(answer.json["id"]), 30)
    assert stand.began(answer.json["id"], 1) - back <= promised(BACK_SECONDS)
    assert stand.succeeded(answer.json["id"])["attempt"] == 1
    assert stand.succeeded(before.job)["attempt"] == 1, "what ran went on"
    until(lambda: stand.get("/api/v1/health/ready", key=None).json["checks"]["broker"] == "ok", 10)
    assert stand.trained(training(name="in-the-light", epochs=2))["attempt"] == 1
    assert stand.pid("worker") == worker

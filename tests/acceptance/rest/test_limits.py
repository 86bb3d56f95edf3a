"""A tenant's limits: bytes of an upload, bytes stored, jobs at once, requests a second; each refused with its code."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from strongroom.tenants.services import DEFAULT_LIMITS
from tests.acceptance.rest.shapes import problem
from tests.edge.house import Answer
from tests.journeys import Journey, row, table, training, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def limited(house: Journey) -> Any:
    """Sets alpha's limits; they are taken back afterwards."""

    def set_to(**limits: Any) -> None:
        told = [f"{limit}={value}" for limit, value in limits.items()]
        house.node.manage("limittenant", "alpha", *told)

        def is_known() -> bool:
            answer = house.get("/api/v1/tenant")
            return answer.status == 200 and answer.json["limits"].items() >= limits.items()

        until(is_known, 5)

    yield set_to
    house.node.manage("limittenant", "alpha", *(f"{limit}=default" for limit in DEFAULT_LIMITS))


def test_an_upload_over_the_limit_is_413(house: Journey, limited: Any) -> None:
    limited(upload_bytes=1000)
    for path in ("/api/v1/datasets/big/content?format=csv", "/api/v1/models/big/content?format=onnx"):
        body = problem(house.put(path, table(100)), 413, "body_too_large")
        assert "1000" in body["errors"][0]["hint"]
        chunked = house.call("PUT", path, iter_free(table(100)), Transfer_Encoding="chunked")
        problem(chunked, 413, "body_too_large")
    problem(house.get("/api/v1/datasets/big"), 404, "not_found")


def iter_free(data: bytes) -> bytes:
    """One chunk and the end, as HTTP writes them, so that no length is told before."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


def test_storage_that_is_full_is_429(house: Journey, limited: Any) -> None:
    for job in house.get("/api/v1/jobs?limit=200").json["data"]:
        house.ended(job["id"])  # what still ran would store what it makes
    used = house.get("/api/v1/tenant").json["usage"]["storage_bytes"]
    limited(storage_bytes=used + 500)
    answer = house.put("/api/v1/datasets/more/content?format=csv", table(100, seed=31))
    problem(answer, 429, "limit_reached")
    assert house.get("/api/v1/tenant").json["usage"]["storage_bytes"] == used, "nothing of it was kept"
    limited(storage_bytes=used)
    problem(house.post("/api/v1/jobs", training("full")), 429, "limit_reached")


def test_no_more_jobs_run_at_once_than_allowed(house: Journey, limited: Any) -> None:
    limited(max_running_jobs=1)
    jobs = [house.submit(training(f"turn-{number}", epochs=100_000)) for number in range(2)]
    until(lambda: house.job(jobs[0])["state"] == "running", 60)
    assert house.get("/api/v1/tenant").json["usage"]["running_jobs"] == 1
    until(lambda: (house.job(jobs[0])["progress"] or {}).get("epoch", 0) > 3, 60)
    assert house.job(jobs[1])["state"] == "queued"
    house.post(f"/api/v1/jobs/{jobs[0]}/cancel")
    until(lambda: house.job(jobs[1])["state"] == "running", 60)
    house.post(f"/api/v1/jobs/{jobs[1]}/cancel")
    house.ended(jobs[1])


def test_requests_over_the_rate_are_429(house: Journey, limited: Any) -> None:
    limited(requests_per_second=2)

    def refused(ask: Callable[[], Answer]) -> bool:
        answers = [ask() for _ in range(10)]
        found = [answer for answer in answers if answer.status != 200]
        for answer in found:
            problem(answer, 429, "rate_limited")
        return bool(found)

    time.sleep(1.5)  # the bucket of two is full again, whatever the fixture's own questions took
    waited = house.get("/api/v1/deployments/weather", Prefer="wait=1")
    assert (waited.status, house.get("/api/v1/tenant").status) == (200, 200), "who waits has asked once"
    until(lambda: refused(lambda: house.predict("weather", [row()])), 5)
    assert refused(lambda: house.get("/api/v1/models")), "the routes that Django answers count, too"
    assert refused(lambda: house.get("/api/v1/predictions"))

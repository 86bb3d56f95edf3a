"""`Prefer: wait` on any route and the event stream of a job, with real jobs behind them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.edge.house import House

pytestmark = pytest.mark.slow

CSV = b"x,y\n" + b"".join(b"%d,%s\n" % (number, b"ab"[number % 2 : number % 2 + 1]) for number in range(40))
UPLOAD = "/api/v1/datasets/{}/content?format=csv&target=y"


@pytest.fixture(scope="module")
def working(house: House) -> Iterator[House]:
    house.node.start("worker", "scheduler")
    yield house
    for name in ("worker", "scheduler"):
        house.node.stop(name)


def test_an_upload_waits_for_its_check(working: House) -> None:
    answer = working.put(UPLOAD.format("waited"), CSV, Prefer="wait=40")
    assert (answer.status, answer.headers["preference-applied"]) == (201, "wait"), answer.body
    assert answer.json["state"] == "ready"
    assert answer.json["rows"] == 40
    assert answer.headers["location"] == "/api/v1/datasets/waited/versions/1"


def test_a_wait_that_is_too_short_answers_202_in_its_time(house: House) -> None:
    """Nobody works here, or somebody does: either way a data set is answered with what it is by then."""
    began = time.monotonic()
    answer = house.get("/api/v1/deployments", Prefer="wait=30")  # a list has nothing to wait for
    assert answer.status == 200
    assert "preference-applied" not in answer.headers
    assert time.monotonic() - began < 10


def test_a_get_waits_and_answers_200(working: House) -> None:
    started = working.put(UPLOAD.format("polled"), CSV)
    answer = working.get(started.headers["location"], Prefer="respond-async, wait=40")
    assert (answer.status, answer.json["state"]) == (200, "ready")
    assert answer.headers["preference-applied"] == "wait"


def test_a_submission_through_django_waits_and_answers_201(working: House) -> None:
    content = CSV.replace(b"x,y", b"x,label")
    assert working.put("/api/v1/datasets/trained/content?format=csv", content, Prefer="wait=40").status == 201
    spec = {
        "kind": "train",
        "name": "small",
        "task": "classification",
        "dataset": {"name": "trained", "version": 1},
        "model": {"kind": "catalogue", "name": "linear"},
        "train": {"optimizer": {"name": "sgd", "lr": 0.1}, "loss": {"name": "cross_entropy"}, "epochs": 2},
    }
    answer = working.post("/api/v1/jobs", spec, Prefer="wait=60", timeout=90)
    assert (answer.status, answer.headers.get("preference-applied")) == (201, "wait"), answer.body
    assert answer.json["state"] in {"succeeded", "failed"}
    assert answer.json["id"] in answer.headers["location"]
    events = list(read_events(working, answer.json["id"]))
    states = [event["data"]["state"] for event in events if event["event"] == "state"]
    assert states[0] == "queued"
    assert states[-1] == answer.json["state"]
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    last = events[-1]["data"]
    assert last.get("result") == answer.json["result"]
    middle = events[len(events) // 2]["id"]
    resumed = list(read_events(working, answer.json["id"], Last_Event_ID=str(middle)))
    assert resumed == [event for event in events if event["id"] > middle]


def test_a_change_waits_and_answers_200_and_a_stop_is_answered_202(house: House) -> None:
    house.serve("alpha", "changed")
    path = "/api/v1/deployments/changed"
    change = house.call("PATCH", path, {"limits": {"concurrency": 7}}, Prefer="wait=20")
    assert (change.status, change.headers["preference-applied"], change.json["state"]) == (200, "wait", "ready")
    assert change.json["limits"]["concurrency"] == 7
    stop = house.call("DELETE", path, Prefer="wait=20")
    assert (stop.status, stop.headers["preference-applied"], stop.json["state"]) == (202, "wait", "draining")


def test_errors_are_not_held(working: House) -> None:
    answer = working.post("/api/v1/jobs", {"kind": "train"}, Prefer="wait=30")
    assert answer.status == 422
    assert "preference-applied" not in answer.headers


def read_events(house: House, job: str, **headers: str) -> Iterator[dict[str, Any]]:
    answer = house.get(f"/api/v1/jobs/{job}/events", **headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    for block in answer.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            yield {"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])}


def test_a_stream_ends_with_the_job(working: House) -> None:
    """A running stream sees the end as it comes."""
    started = working.put(UPLOAD.format("streamed"), CSV)
    assert started.status == 202
    check = working.get("/api/v1/jobs?kind=check&limit=1").json["data"][0]
    events = list(read_events(working, check["id"]))
    assert events[-1]["data"]["state"] == "succeeded"


def test_other_tenants_jobs_have_no_stream(working: House) -> None:
    job = working.get("/api/v1/jobs?limit=1").json["data"][0]["id"]
    assert working.get(f"/api/v1/jobs/{job}/events", key="beta").status == 404
    assert working.get("/api/v1/jobs/nonsense/events").status == 404
    assert working.get(f"/api/v1/jobs/{job}/events", key=working.key("predict")).code == "scope_missing"
    assert working.get(f"/api/v1/jobs/{job}/events", Last_Event_ID="x").code == "malformed_header"


def test_a_reader_that_goes_away_is_forgotten(house: House) -> None:
    """The stream of a waiting job stays open, and its end is noticed: the process serves on."""
    job = house.shell("alpha", WAITING)
    head = f"GET /api/v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.keys['alpha']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.node.port), 10) as connection:
        connection.sendall(head.encode())
        assert b"text/event-stream" in connection.recv(65536)
    house.shell("alpha", CANCEL.format(job=job))
    assert house.get("/api/v1/health/live", key=None).status == 200


WAITING = """
from datetime import timedelta
from django.utils import timezone
from strongroom import ids
from strongroom.jobs.models import Event, Job
job = Job.objects.create(kind="train", name="later", spec_sha256="", not_before=timezone.now() + timedelta(hours=1))
Event.objects.create(job=job, kind="state", data={"state": "queued", "attempt": 0})
answer = ids.text("job", job.id)
"""
CANCEL = """
from strongroom import ids
from strongroom.jobs import services as jobs
answer = jobs.cancel(SYSTEM, jobs.find(ids.parse("job", {job!r}))).state
"""


def test_many_wait_at_once(house: House) -> None:
    job = house.shell("alpha", WAITING)
    found: list[int] = []
    ask = lambda: found.append(house.get(f"/api/v1/jobs/{job}", Prefer="wait=20").status)  # noqa: E731  # one line
    callers = [threading.Thread(target=ask) for _ in range(20)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    house.shell("alpha", CANCEL.format(job=job))
    began = time.monotonic()
    for caller in callers:
        caller.join()
    assert found == [200] * 20
    assert time.monotonic() - began < 15

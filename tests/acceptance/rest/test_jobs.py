"""/jobs: submitted or only looked at, shown, followed by metrics, log and events, cancelled, retried, deleted."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.rest.shapes import JOB, JOB_ITEM, USAGE, document, page, problem
from tests.journeys import Journey, table, training, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

JOBS = "/api/v1/jobs"


@pytest.fixture(scope="module")
def done(house: Journey) -> Any:
    """The job that trained `weather`."""
    return next(job for job in house.get(f"{JOBS}?kind=train&name=weather").json["data"] if job["state"] == "succeeded")


def test_a_job_is_accepted_with_every_default_written_out(house: Journey) -> None:
    spec = training("accepted", epochs=1)
    dry = house.post(f"{JOBS}?dry_run=1", spec)
    assert (dry.status, set(dry.json)) == (200, {"valid", "spec", "spec_sha256"})
    assert dry.json["valid"] is True
    answer = house.post(JOBS, spec)
    assert answer.status == 202
    body = document(answer.json, JOB)
    assert answer.headers["location"] == f"{JOBS}/{body['id']}"
    assert (body["state"], body["attempt"], body["max_attempts"], body["queue"]) == ("queued", 0, 3, "cpu")
    for name in ("progress", "worker", "device", "usage", "started_at", "finished_at", "result", "error", "retry_of"):
        assert body[name] is None, name
    assert (body["metrics"], body["cost"], body["currency"]) == ({}, None, None)
    assert (body["spec"], body["spec_sha256"]) == (dry.json["spec"], dry.json["spec_sha256"])
    assert body["spec"]["dataset"]["version"] == 1, "the newest version at submission"
    assert body["spec"]["register"] == {"model": "accepted", "stage": "candidate", "deploy": None}
    assert body["spec"]["train"]["loss"]["name"] == "cross_entropy"
    assert body["spec"]["split"] == {"method": "stratified", "fractions": [0.7, 0.15, 0.15], "seed": 0}
    waited = house.get(answer.headers["location"], Prefer="wait=50")
    assert (waited.status, waited.headers["preference-applied"]) == (200, "wait")
    house.succeeded(body["id"])


def test_a_job_that_has_succeeded(house: Journey, done: Any) -> None:
    job = document(house.job(done["id"]), JOB)
    assert (job["state"], job["attempt"], job["error"], job["device"]) == ("succeeded", 1, None, "cpu")
    assert re.search(r"-cpu-\d$", job["worker"])
    assert job["progress"] == {**job["progress"], "fraction": 1.0, "epoch": 2, "epochs": 2}
    assert set(job["progress"]) >= {"fraction", "epoch", "epochs", "step", "steps", "eta_seconds"}
    assert set(job["usage"]) == set(USAGE)
    assert job["usage"]["core_seconds"] > 0
    assert (job["usage"]["energy_joules"], job["usage"]["energy_source"]) == (None, "none")
    result = job["result"]
    assert (result["model"], result["version"], result["state"]) == ("weather", 1, "ready")
    assert {"validation/accuracy", "test/accuracy", "test/loss"} <= set(result["metrics"])
    assert {"train/loss", "validation/loss", "validation/accuracy"} <= set(job["metrics"])
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


def test_jobs_are_listed_without_their_spec_and_filtered(house: Journey, done: Any) -> None:
    listed = page(house.get(f"{JOBS}?limit=200"), JOB_ITEM)
    assert done["id"] in [job["id"] for job in listed]
    assert {job["kind"] for job in listed} >= {"train", "check", "import"}
    checks = page(house.get(f"{JOBS}?state=succeeded&kind=check&limit=5"), JOB_ITEM)
    assert {(job["state"], job["kind"]) for job in checks} == {("succeeded", "check")}
    assert set(checks[0]["result"]) == {"dataset", "version", "state"}
    assert set(checks[0]["progress"]) >= {"fraction", "items", "items_total"}
    for query, path in (("state=asleep", "?state"), ("kind=dream", "?kind")):
        assert problem(house.get(f"{JOBS}?{query}"), 422, "invalid_field")["errors"][0]["path"] == path


def test_metrics_come_oldest_first(house: Journey, done: Any) -> None:
    points = house.pages(f"{JOBS}/{done['id']}/metrics", limit=3)
    assert all(set(point) == {"name", "epoch", "step", "value", "at"} for point in points)
    losses = [(point["epoch"], point["value"]) for point in points if point["name"] == "validation/loss"]
    assert [epoch for epoch, _ in losses] == [1, 2]
    assert points == house.get(f"{JOBS}/{done['id']}/metrics?limit=200").json["data"]


def test_the_log_can_be_followed(house: Journey, done: Any) -> None:
    lines = house.pages(f"{JOBS}/{done['id']}/logs", limit=2)
    assert lines
    assert all(set(line) == {"id", "at", "level", "text"} for line in lines)
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    after = house.get(f"{JOBS}/{done['id']}/logs?after={lines[1]['id']}&limit=200").json["data"]
    assert after == lines[2:]
    assert (
        problem(house.get(f"{JOBS}/{done['id']}/logs?after=x"), 422, "invalid_field")["errors"][0]["path"] == "?after"
    )


def test_events_stream_to_the_end_and_resume(house: Journey, done: Any) -> None:
    events = house.events(done["id"])
    ids = [id for id, _, _ in events]
    assert ids == sorted(set(ids))
    assert {kind for _, kind, _ in events} == {"state", "progress", "metric"}
    states = [data for _, kind, data in events if kind == "state"]
    assert [data["state"] for data in states] == ["queued", "running", "succeeded"]
    assert (states[-1]["attempt"], states[-1]["result"]["model"], states[-1]["result"]["version"]) == (1, "weather", 1)
    metric = next(data for _, kind, data in events if kind == "metric")
    assert set(metric) == {"name", "epoch", "step", "value"}
    progress = next(data for _, kind, data in events if kind == "progress")
    assert set(progress) == {"fraction", "epoch", "epochs", "step", "steps", "eta_seconds"}
    for cut in (0, len(events) // 2, len(events) - 1):
        assert house.events(done["id"], ids[cut]) == events[cut + 1 :]
    problem(house.get(f"{JOBS}/{done['id']}/events", Last_Event_ID="x"), 400, "malformed_header")


def test_all_problems_of_a_spec_are_told_at_once(house: Journey) -> None:
    spec = training(
        "wrong", train={"optimiser": {"name": "sgd"}, "optimizer": {"name": "sgd", "lr": -0.1}, "epochs": 0}
    )
    spec["colour"] = "red"
    body = problem(house.post(JOBS, spec), 422, "invalid_spec")
    found = {(error["path"], error["code"]): error for error in body["errors"]}
    misspelt = found["/train/optimiser", "extra_forbidden"]
    assert misspelt["hint"] == "did you mean 'optimizer'?"
    rate = found["/train/optimizer/lr", "greater_than"]
    assert rate["message"] == "must be greater than 0, is -0.1"
    assert {path for path, _ in found} == {"/train/optimiser", "/train/optimizer/lr", "/train/epochs", "/colour"}
    assert body["title"] == "The job spec is not valid"
    assert body["detail"].startswith("4 problems; the first: ")
    problem(house.post(f"{JOBS}?dry_run=1", spec), 422, "invalid_spec")


def test_what_is_not_built_yet_is_said_so(house: Journey) -> None:
    specs = [
        (training("later", preprocess={"drop_duplicates": True}), "/preprocess"),
        (training("later", train={"scheduler": {"name": "cosine"}}), "/train/scheduler"),
        (training("later", train={"optimizer": {"name": "lbfgs"}}), "/train/optimizer/name"),
        ({**training("later"), "task": "embedding"}, "/task"),
        ({**training("later"), "kind": "optimize"}, "/kind"),
    ]
    for spec, path in specs:
        body = problem(house.post(JOBS, spec), 422, "invalid_spec", (path, "not_implemented"))
        assert body["errors"][0]["hint"], path
    for kind in ("check", "predict"):
        body = problem(house.post(JOBS, {"kind": kind, "dataset": {"name": "weather"}}), 422, "invalid_spec")
        assert body["errors"][0]["path"] == "/kind"


def test_a_spec_that_contradicts_its_data_takes_no_worker(house: Journey) -> None:
    numbers = house.deposit(
        "numbers", b"a,b,label\n" + b"".join(b"%d,%d,%d.5\n" % (n, n % 7, n * 3) for n in range(60))
    )
    assert numbers["columns"][-1]["type"] == "number"
    answer = house.post(JOBS, training("contradiction", dataset="numbers"))
    problem(answer, 422, "dataset_contradicts_spec")
    lenet = training("contradiction", model={"kind": "catalogue", "name": "lenet"})
    problem(house.post(JOBS, lenet), 422, "dataset_contradicts_spec")
    assert house.get(f"{JOBS}?name=contradiction").json["data"] == []
    problem(house.post(JOBS, training("no-data", dataset="missing")), 404, "not_found")
    problem(house.post(JOBS, {**training("no-data"), "dataset": {"name": "weather", "version": 9}}), 404, "not_found")
    fit = house.trained({**training("line", dataset="numbers", epochs=1), "task": "regression"})
    assert {"validation/r2", "test/r2", "test/loss"} <= set(fit["result"]["metrics"])


def test_a_diverging_training_fails_with_advice(house: Journey) -> None:
    wild = training("wild", epochs=50, train={"optimizer": {"name": "sgd", "lr": 1e30}})
    job = house.ended(house.submit(wild))
    assert (job["state"], job["result"]) == ("failed", None)
    assert set(job["error"]) == {"code", "message", "hint"}
    assert job["error"]["code"] == "diverged"
    assert "lr" in job["error"]["hint"]
    states = [data for _, kind, data in house.events(job["id"]) if kind == "state"]
    assert (states[-1]["state"], states[-1]["error"]) == ("failed", job["error"])


def test_a_job_over_its_time_fails(house: Journey) -> None:
    job = house.ended(house.submit(training("slow", epochs=100_000, resources={"max_seconds": 1})))
    assert (job["state"], job["error"]["code"]) == ("failed", "timed_out")


def test_unfinished_jobs_can_be_cancelled_but_not_deleted_or_retried(house: Journey) -> None:
    job = house.submit(training("long", epochs=100_000))
    until(lambda: house.job(job)["state"] == "running", 60)
    problem(house.delete(f"{JOBS}/{job}"), 409, "job_unfinished")
    problem(house.post(f"{JOBS}/{job}/retry"), 409, "job_unfinished")
    first = house.post(f"{JOBS}/{job}/cancel")
    assert (first.status, document(first.json, JOB)["cancel_requested_at"] is not None) == (202, True)
    again = house.post(f"{JOBS}/{job}/cancel", {})
    assert (again.status, again.json["cancel_requested_at"]) == (202, first.json["cancel_requested_at"])
    ended = house.ended(job)
    assert (ended["state"], ended["result"], ended["error"]) == ("cancelled", None, None)
    states = [data["state"] for _, kind, data in house.events(job) if kind == "state"]
    assert states == ["queued", "running", "cancelled"]
    retried = house.post(f"{JOBS}/{job}/retry")
    assert retried.status == 202
    body = document(retried.json, JOB)
    assert (body["retry_of"], body["spec"], body["id"] != job) == (job, ended["spec"], True)
    assert retried.headers["location"] == f"{JOBS}/{body['id']}"
    assert house.post(f"{JOBS}/{body['id']}/cancel").status == 202
    house.ended(body["id"])
    assert house.delete(f"{JOBS}/{job}").status == 204
    problem(house.get(f"{JOBS}/{job}"), 404, "not_found")
    problem(house.delete(f"{JOBS}/{job}"), 404, "not_found")


def test_a_finished_job_cannot_be_cancelled(house: Journey, done: Any) -> None:
    problem(house.post(f"{JOBS}/{done['id']}/cancel"), 409, "job_finished")
    assert house.job(done["id"])["cancel_requested_at"] is None


def test_a_job_that_waits_is_cancelled_at_once(house: Journey) -> None:
    running = [house.submit(training(f"busy-{number}", epochs=100_000)) for number in range(2)]
    until(lambda: all(house.job(job)["state"] == "running" for job in running), 60)
    waiting = house.submit(training("waiting", epochs=1))
    answer = house.post(f"{JOBS}/{waiting}/cancel")
    assert (answer.status, answer.json["state"], answer.json["attempt"]) == (202, "cancelled", 0)
    assert house.job(waiting)["finished_at"] is not None
    check = house.put("/api/v1/datasets/quick/content?format=csv", table(30, seed=77), Prefer="wait=50")
    assert (check.status, check.json["state"]) == (201, "ready"), "a long training holds up no check"
    for job in running:
        house.post(f"{JOBS}/{job}/cancel")
        house.ended(job)


@pytest.mark.parametrize("path", [JOBS, "/api/v1/deployments", "/api/v1/predictions"])
def test_a_repeat_with_the_same_idempotency_key_is_answered_the_same(house: Journey, path: str) -> None:
    made: dict[str, Any] = {
        JOBS: training("repeated", epochs=1),
        "/api/v1/deployments": {
            "name": "repeated",
            "versions": [{"model": "mlp", "version": 1, "weight": 100, "mode": "live"}],
        },
        "/api/v1/predictions": {"deployment": "mlp", "inputs": {"x": [[0.25] * 64]}},
    }
    first = house.post(path, made[path], Idempotency_Key="say-it-twice")
    assert first.status == 202, first.body
    assert "idempotency-replayed" not in first.headers
    again = house.post(path, made[path], Idempotency_Key="say-it-twice")
    assert (again.status, again.body) == (202, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = {**made[path], "name": "other"} if path != "/api/v1/predictions" else {"deployment": "mlp", "rows": [{}]}
    problem(house.post(path, other, Idempotency_Key="say-it-twice"), 409, "idempotency_conflict")
    for wrong in ("", "a b", "x" * 256):
        problem(house.post(path, made[path], Idempotency_Key=wrong), 400, "malformed_header")
    mine = {**made[path], "deployment": "none"} if path == "/api/v1/predictions" else made[path]
    if path != "/api/v1/predictions":
        other_tenant = house.post(path, mine, key="beta", Idempotency_Key="say-it-twice")
        assert other_tenant.status in (404, 422), "another tenant's key is another key"

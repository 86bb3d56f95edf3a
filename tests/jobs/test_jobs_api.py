"""`/jobs` of the native API: its bodies, statuses and refusals."""

from typing import Any

import pytest

from strongroom import ids
from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import endings, services
from strongroom.jobs.models import Event, LogLine
from strongroom.tenants import scope
from tests.callers import Deposit
from tests.jobs.work import submitted, taken, training

pytestmark = pytest.mark.slow

FIELDS = [
    "id", "kind", "name", "state", "cancel_requested_at", "attempt", "max_attempts", "priority", "queue", "worker",
    "device", "progress", "metrics", "usage", "cost", "currency", "result", "error", "retry_of", "created_at",
    "started_at", "finished_at", "created_by",
]  # fmt: skip


def test_a_job_is_submitted_read_cancelled_retried_and_deleted(acme: Deposit, digits: DatasetVersion) -> None:
    made = acme.api.post("/api/v1/jobs", training())
    assert made.status_code == 202, made.content
    body = made.json()
    where = f"/api/v1/jobs/{body['id']}"
    assert made["Location"] == where
    assert list(body) == [*FIELDS, "spec", "spec_sha256"]
    before = ("progress", "worker", "device", "usage", "started_at", "finished_at", "result", "error", "retry_of")
    assert [body[name] for name in before] == [None] * len(before)
    assert (body["state"], body["attempt"], body["metrics"]) == ("queued", 0, {})
    assert body["created_by"]["kind"] == "key"
    assert acme.api.get(where).json() == body

    cancelled = acme.api.post(f"{where}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert acme.api.post(f"{where}/cancel").status_code == 202
    again = acme.api.post(f"{where}/retry", {})
    assert (again.status_code, again.json()["retry_of"]) == (202, body["id"])
    assert acme.api.delete(where).status_code == 204
    assert acme.api.get(where).status_code == 404
    assert acme.api.delete(again["Location"]).json()["code"] == "job_unfinished"


def test_a_dry_run_tells_the_whole_spec_and_queues_nothing(acme: Deposit, digits: DatasetVersion) -> None:
    answer = acme.api.post("/api/v1/jobs?dry_run=1", training())
    assert answer.status_code == 200
    body = answer.json()
    assert (list(body), body["valid"]) == (["valid", "spec", "spec_sha256"], True)
    assert body["spec"]["dataset"]["version"] == 1
    assert acme.api.get("/api/v1/jobs").json() == {"data": [], "next_cursor": None, "has_more": False}
    assert acme.api.post("/api/v1/jobs", training()).json()["spec_sha256"] == body["spec_sha256"]


def test_a_dry_run_of_a_wrong_spec_is_refused(acme: Deposit, digits: DatasetVersion) -> None:
    answer = acme.api.post("/api/v1/jobs?dry_run=1", training() | {"epochs": 3})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert answer.json()["errors"][0]["path"] == "/epochs"


def test_jobs_are_listed_newest_first_by_state_kind_and_name(acme: Deposit, digits: DatasetVersion) -> None:
    for name in ("a", "b", "c"):
        submitted(acme, training(name))
    taken()
    listed = acme.api.get("/api/v1/jobs?limit=2").json()
    assert [job["name"] for job in listed["data"]] == ["c", "b"]
    assert [list(job) for job in listed["data"]] == [[*FIELDS, "spec_sha256"]] * 2
    following = acme.api.get(f"/api/v1/jobs?limit=2&cursor={listed['next_cursor']}").json()
    assert [job["name"] for job in following["data"]] == ["a"]
    assert [job["name"] for job in acme.api.get("/api/v1/jobs?state=running").json()["data"]] == ["a"]
    assert acme.api.get("/api/v1/jobs?kind=check").json()["data"] == []
    assert [job["name"] for job in acme.api.get("/api/v1/jobs?name=b").json()["data"]] == ["b"]


@pytest.mark.parametrize("query", ["state=asleep", "kind=flight", "name=A!", "colour=red", "limit=0", "cursor=x"])
def test_a_query_that_is_wrong_is_refused(acme: Deposit, query: str) -> None:
    assert acme.api.get(f"/api/v1/jobs?{query}").status_code in (400, 422)


def test_the_same_idempotency_key_submits_once(acme: Deposit, digits: DatasetVersion) -> None:
    first = acme.api.post("/api/v1/jobs", training(), Idempotency_Key="k1")
    again = acme.api.post("/api/v1/jobs", training(), Idempotency_Key="k1")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again["Idempotency-Replayed"] == "true"
    assert len(acme.api.get("/api/v1/jobs").json()["data"]) == 1
    other = acme.api.post("/api/v1/jobs", training("other"), Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize("path", ["", "/logs", "/metrics"])
def test_another_tenants_job_is_not_there(acme: Deposit, digits: DatasetVersion, globex: Deposit, path: str) -> None:
    where = f"/api/v1/jobs/{ids.text('job', submitted(acme).id)}"
    assert globex.api.get(where + path).status_code == 404
    assert globex.api.post(f"{where}/cancel").status_code == 404
    assert globex.api.post(f"{where}/retry").status_code == 404
    assert globex.api.delete(where).status_code == 404
    assert acme.api.get(where).json()["state"] == "queued"


def test_each_method_asks_for_its_scope(acme: Deposit, digits: DatasetVersion) -> None:
    reader = acme.key("jobs:read")
    where = f"/api/v1/jobs/{ids.text('job', submitted(acme).id)}"
    assert reader.get(where).status_code == 200
    for answer in (reader.post("/api/v1/jobs", training()), reader.post(f"{where}/cancel"), reader.delete(where)):
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
        assert answer.json()["errors"][0]["hint"] == "jobs:write"
    assert acme.key("predict").get(where).status_code == 403


def test_a_job_that_deploys_needs_the_scope_to_deploy(acme: Deposit, digits: DatasetVersion) -> None:
    document = training(register={"deploy": "live"})
    answer = acme.key("jobs:write").post("/api/v1/jobs", document)
    assert (answer.status_code, answer.json()["errors"][0]["hint"]) == (403, "deployments:write")
    assert acme.key("jobs:write", "deployments:write").post("/api/v1/jobs", document).status_code == 202


def test_a_job_that_changes_production_needs_the_scope_to_do_so(acme: Deposit, digits: DatasetVersion) -> None:
    document = training(register={"model": "net", "stage": "production"})
    answer = acme.key("jobs:write").post("/api/v1/jobs", document)
    assert (answer.status_code, answer.json()["errors"][0]["hint"]) == (403, "models:write")
    assert acme.key("jobs:write", "models:write").post("/api/v1/jobs", document).status_code == 202


def test_the_log_and_the_metrics_are_pages_oldest_first(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        for number in range(3):
            LogLine.objects.create(job=job, attempt=1, level="info", text=f"line {number}")
            data = {"name": "train/loss", "epoch": number, "step": number, "value": 0.5}
            Event.objects.create(job=job, kind="metric", data=data)
        Event.objects.create(job=job, kind="progress", data={"fraction": 0.5})
    where = f"/api/v1/jobs/{ids.text('job', job.id)}"
    lines = acme.api.get(f"{where}/logs?limit=2").json()
    assert [(line["level"], line["text"]) for line in lines["data"]] == [("info", "line 0"), ("info", "line 1")]
    assert lines["has_more"]
    rest = acme.api.get(f"{where}/logs?after={lines['data'][-1]['id']}").json()
    assert [line["text"] for line in rest["data"]] == ["line 2"]
    metrics = acme.api.get(f"{where}/metrics").json()
    assert [list(point) for point in metrics["data"]] == [["name", "epoch", "step", "value", "at"]] * 3
    assert [point["epoch"] for point in metrics["data"]] == [0, 1, 2]


def test_a_failed_job_says_why(acme: Deposit, digits: DatasetVersion) -> None:
    submitted(acme)
    job, _ = taken()
    with scope.tenant(acme.id):
        endings.fail(job, endings.Failure("diverged", "the loss became NaN at epoch 3", "lower train.optimizer.lr"))
    body: dict[str, Any] = acme.api.get(f"/api/v1/jobs/{ids.text('job', job.id)}").json()
    assert body["error"] == {
        "code": "diverged",
        "message": "the loss became NaN at epoch 3",
        "hint": "lower train.optimizer.lr",
    }
    assert (body["state"], body["result"]) == ("failed", None)


def test_the_answers_of_a_prediction_are_not_for_who_may_read_jobs(acme: Deposit) -> None:
    with scope.tenant(acme.id):
        job = services.Job.objects.create(
            kind="predict",
            name="live",
            state="succeeded",
            result={"deployment": "live", "model": "m", "version": 1, "rows": 1, "predictions": [{"label": "secret"}]},
        )
    answer = acme.key("jobs:read").get(f"/api/v1/jobs/{ids.text('job', job.id)}")
    assert answer.json()["result"] == {"deployment": "live", "model": "m", "version": 1, "rows": 1}


def test_a_retry_needs_the_scopes_that_the_job_needed(acme: Deposit, digits: DatasetVersion) -> None:
    made = acme.api.post("/api/v1/jobs", training(register={"model": "net", "deploy": "live"}))
    where = made["Location"]
    acme.api.post(f"{where}/cancel")
    refused = acme.key("jobs:write").post(f"{where}/retry", {})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    bound = acme.key("jobs:write", "deployments:write", allowed_models=["another"])
    assert bound.post(f"{where}/retry", {}).json()["code"] == "model_not_allowed"
    assert acme.key("jobs:write", "deployments:write").post(f"{where}/retry", {}).status_code == 202


def test_a_key_bound_to_deployments_submits_no_job_that_changes_another(acme: Deposit, digits: DatasetVersion) -> None:
    bound = acme.key("jobs:write", "deployments:write", allowed_models=["another"])
    refused = bound.post("/api/v1/jobs", training(register={"model": "net", "deploy": "live"}))
    assert (refused.status_code, refused.json()["code"]) == (403, "model_not_allowed")

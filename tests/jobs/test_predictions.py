"""Asynchronous predictions: what is refused, what is sealed, what is shown; and answers of a real cell."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from strongroom import ids
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments import services as deployments
from strongroom.errors import Conflict, Gone, Invalid, LimitReached, NotFound
from strongroom.jobs import answering, endings, plans, services
from strongroom.jobs.models import Job
from strongroom.jobs.states import State
from strongroom.registry import services as registry
from strongroom.tenants import scope
from strongroom.tenants.models import Tenant
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from tests.callers import Deposit, until
from tests.jobs.work import actor, fresh, taken, worked
from tests.nodes import Node

pytestmark = pytest.mark.slow

SIGNATURE = {
    "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 32, 32]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    "classes": ["0", "1", "2"],
    "task": "classification",
}
ROWS = {"deployment": "live", "rows": [{"radius": 12.1}]}


@pytest.fixture
def live(acme: Deposit) -> str:
    """A deployment without a cell behind it."""
    with scope.tenant(acme.id):
        artefact = vault.seal_bytes(acme.id, "model", b"onnx")
        version = registry.register(
            name="net", task="classification", artefact=artefact, result={"signature": SIGNATURE}, lineage={}
        )
        deployments.deploy_version(actor(acme), "live", version)
    return "live"


def predicted(deposit: Deposit, document: Any) -> Job:
    with scope.tenant(deposit.id):
        return services.submit_prediction(actor(deposit), document)


def shown(job: Job) -> dict[str, Any]:
    with scope.tenant(job.tenant_id, write=False):
        return services.prediction_document(Job.objects.get(id=job.id))


def test_a_prediction_waits_and_its_rows_are_sealed(acme: Deposit, live: str) -> None:
    job = predicted(acme, ROWS)
    assert shown(job) == {
        "id": ids.text("pred", job.id),
        "state": "queued",
        "deployment": "live",
        "model": None,
        "version": None,
        "progress": None,
        "output": None,
        "error": None,
        "created_at": shown(job)["created_at"],
        "finished_at": None,
        "expires_at": None,
    }
    with scope.tenant(acme.id, write=False):
        artefact = Job.objects.get(id=job.id).input_artefact
        assert artefact.kind == "input"
        assert vault.read_bytes(artefact) == b'{"rows": [{"radius": 12.1}]}'
    assert "rows" not in fresh(job).spec


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (None, ""),
        ({"rows": [{}]}, "/deployment"),
        ({"deployment": "live"}, ""),
        ({**ROWS, "dataset": "digits@1"}, ""),
        ({"deployment": "live", "rows": []}, "/rows"),
        ({"deployment": "live", "rows": [1]}, "/rows"),
        ({"deployment": "live", "inputs": [1]}, "/inputs"),
        ({"deployment": "live", "dataset": 3}, "/dataset"),
        ({"deployment": "live", "dataset": "digits@x"}, "/dataset"),
        ({**ROWS, "row": 1}, "/row"),
    ],
)
def test_what_is_no_prediction_is_refused(acme: Deposit, live: str, document: Any, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        predicted(acme, document)
    assert [problem.path for problem in caught.value.errors] == [path]


def test_every_problem_of_a_prediction_is_told_at_once(acme: Deposit) -> None:
    with pytest.raises(Invalid) as caught:
        predicted(acme, {"rows": [1], "colour": "red"})
    assert {problem.path for problem in caught.value.errors} == {"/colour", "/deployment", "/rows"}


def test_a_misspelt_field_of_a_prediction_is_answered_with_the_nearest_name(acme: Deposit) -> None:
    with pytest.raises(Invalid) as caught:
        predicted(acme, {**ROWS, "datasets": "digits@1"})
    assert [(problem.path, problem.hint) for problem in caught.value.errors] == [
        ("/datasets", "did you mean 'dataset'?")
    ]


@pytest.mark.parametrize("document", [{**ROWS, "deployment": "none"}, {"deployment": "live", "dataset": "none@1"}])
def test_what_is_not_there_is_not_found(acme: Deposit, live: str, document: Any) -> None:
    with pytest.raises(NotFound):
        predicted(acme, document)


def test_another_tenants_deployment_is_not_found(acme: Deposit, live: str, globex: Deposit) -> None:
    with pytest.raises(NotFound):
        predicted(globex, ROWS)


def test_a_prediction_of_another_tenant_is_not_there(acme: Deposit, live: str, globex: Deposit) -> None:
    job = predicted(acme, ROWS)
    with scope.tenant(globex.id, write=False), pytest.raises(NotFound):
        services.prediction(job.id)


def test_a_training_is_no_prediction(acme: Deposit, digits: DatasetVersion) -> None:
    from tests.jobs.work import submitted

    with scope.tenant(acme.id, write=False):
        submitted_id = submitted(acme).id
    with scope.tenant(acme.id, write=False), pytest.raises(NotFound):
        services.prediction(submitted_id)


def test_the_rows_are_destroyed_with_the_prediction_s_end(acme: Deposit, live: str) -> None:
    job = predicted(acme, ROWS)
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
        assert not Artefact.objects.filter(kind="input", state="sealed").exists()
        assert shown(job)["state"] == "cancelled"
        with pytest.raises(Gone):
            services.retry(actor(acme), Job.objects.get(id=job.id))


def test_a_prediction_on_a_data_set_is_retried_on_the_same_version(
    acme: Deposit, live: str, digits: DatasetVersion
) -> None:
    job = predicted(acme, {"deployment": "live", "dataset": "digits"})
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
        again = services.retry(actor(acme), Job.objects.get(id=job.id))
    assert fresh(again).spec["dataset"]["version"] == 1
    assert again.retry_of == job.id


def test_a_finished_prediction_shows_its_answers_for_a_day(acme: Deposit, live: str) -> None:
    predicted(acme, ROWS)
    job, _ = taken()
    answers = [{"label": "1", "score": 0.9, "scores": {"1": 0.9}}]
    result = {"deployment": "live", "model": "net", "version": 1, "rows": 1, "predictions": answers}
    with scope.tenant(acme.id):
        endings.succeed(job, result, said={})
    body = shown(job)
    assert (body["state"], body["model"], body["version"]) == ("succeeded", "net", 1)
    assert body["output"] == {"predictions": answers, "rows": 1, "download": None}
    with scope.tenant(acme.id, write=False):
        row = services.prediction(job.id)
        assert row.expires_at - row.finished_at > timedelta(hours=23, minutes=59)
        with pytest.raises(NotFound):
            services.prediction_output(row)
    with scope.tenant(acme.id):
        Job.objects.filter(id=job.id).update(expires_at=timezone.now())
        with pytest.raises(Gone) as caught:
            services.prediction(job.id)
        assert caught.value.status == 410


def test_an_output_that_is_not_there_yet_is_a_conflict(acme: Deposit, live: str) -> None:
    job = predicted(acme, ROWS)
    with scope.tenant(acme.id, write=False), pytest.raises(Conflict):
        services.prediction_output(Job.objects.get(id=job.id))


def test_a_prediction_whose_deployment_was_stopped_says_so(acme: Deposit, live: str) -> None:
    job = predicted(acme, ROWS)
    with scope.tenant(acme.id):
        deployments.stop(actor(acme), "live")
    assert worked().state == State.FAILED
    assert shown(job)["error"]["code"] == "not_found"


def test_inputs_of_the_wrong_shape_are_named(acme: Deposit, live: str) -> None:
    job = predicted(acme, {"deployment": "live", "inputs": {"image": [[[[0]]]]}})
    worked()
    error = shown(job)["error"]
    assert error["code"] == "invalid_field"
    assert "[1, 1, 1, 1]" in error["message"]


BEGIN = """
import json
from strongroom.jobs import services
from strongroom.jobs.models import Job
from strongroom.tenants import scope
from strongroom.tenants.models import Tenant
from strongroom.tenants.models import Tenant
from strongroom.vault import services as vault
from tests.callers import deposit
from tests.jobs.work import CLASSES, actor, images, ready_dataset, submitted, training
"""
TRAIN = """
acme = deposit("acme")
ready_dataset(acme)
submitted(acme, training(epochs=60, register={"deploy": "live"}))
print(json.dumps(None))
"""
PREDICT = """
from tests.callers import SYSTEM
tenant = Tenant.objects.get(name="acme")
pixel = [[[[0] * 32] * 32], [[[200] * 32] * 32]]
with scope.tenant(tenant.id):
    services.submit_prediction(SYSTEM, {"deployment": "live", "inputs": {"image": pixel}})
    services.submit_prediction(SYSTEM, {"deployment": "live", "dataset": "digits@1"})
print(json.dumps(None))
"""
SHOW = """
tenant = Tenant.objects.get(name="acme")
found = []
with scope.tenant(tenant.id, write=False):
    for job in Job.objects.filter(kind="predict").order_by("created_at"):
        file = None
        if job.output_artefact is not None:
            file = vault.read_bytes(job.output_artefact).decode()
        found.append({**services.prediction_document(job), "file": file})
print(json.dumps(found))
"""
COUNT = "SELECT count(*) FROM jobs_job WHERE kind = '{kind}' AND state IN ('succeeded', 'failed')"


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_the_nodes_cell_answers_inputs_and_whole_data_sets(node: Node) -> None:
    from tests.jobs.test_worker import rows

    def ended(kind: str, count: int) -> bool:
        return bool(rows(node, COUNT.format(kind=kind))[0][0] == count)

    node.start("worker", "scheduler", "agent")
    node.shell(BEGIN + TRAIN)
    assert until(lambda: ended("train", 1), 60), node.log("worker")
    node.shell(BEGIN + PREDICT)
    assert until(lambda: ended("predict", 2), 60), node.log("worker") + node.log("agent")
    direct, whole = node.shell(BEGIN + SHOW)
    assert direct["error"] is None
    assert [each["label"] for each in direct["output"]["predictions"]] == ["0", "2"]
    assert direct["progress"] == {"fraction": 1.0, "items": 2, "items_total": 2}
    assert whole["error"] is None, node.log("worker")
    assert whole["output"]["predictions"] is None
    assert (whole["output"]["rows"], whole["output"]["download"]) == (60, f"/api/v1/predictions/{whole['id']}/output")
    lines = whole["file"].splitlines()
    assert len(lines) == 60
    used = rows(node, "SELECT sum(items), sum(errors) FROM metering_usage")
    assert [int(number) for number in used[0]] == [62, 0]


def test_a_retry_of_a_prediction_needs_what_predicting_needs(acme: Deposit, digits: DatasetVersion, live: str) -> None:
    job = predicted(acme, {"deployment": live, "dataset": "digits@1"})
    with scope.tenant(acme.id):
        services.cancel(actor(acme), job)
    where = f"/api/v1/jobs/{ids.text('job', job.id)}/retry"
    refused = acme.key("jobs:write").post(where, {})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    bound = acme.key("jobs:write", "predict", allowed_models=["another"]).post(where, {})
    assert (bound.status_code, bound.json()["code"]) == (403, "model_not_allowed")
    assert acme.key("jobs:write", "predict").post(where, {}).status_code == 202


def test_inputs_count_against_the_tenants_storage(acme: Deposit, live: str) -> None:
    Tenant.objects.filter(id=acme.id).update(limits={"storage_bytes": 1000})
    with pytest.raises(LimitReached, match="limit of 1000 bytes"):
        predicted(acme, {"deployment": live, "rows": [{"text": "x" * 2000}]})


def test_what_is_refused_for_a_full_queue_is_not_sealed_first(
    acme: Deposit, live: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "WAITING_LIMIT", 0)
    before = sorted((home / "objects").rglob("*"))
    with pytest.raises(LimitReached):
        predicted(acme, {"deployment": live, "rows": [{"radius": 1}]})
    assert sorted((home / "objects").rglob("*")) == before


def test_a_key_bound_to_other_deployments_changes_none(acme: Deposit, live: str) -> None:
    bound = acme.key("deployments:write", allowed_models=["another"])
    answers = [
        bound.call("PATCH", f"/api/v1/deployments/{live}", {"limits": {"concurrency": 1}}),
        bound.delete(f"/api/v1/deployments/{live}"),
        bound.post("/api/v1/deployments", {"name": "third", "versions": [{"model": "net", "version": 1}]}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "model_not_allowed")] * 3
    own = acme.key("deployments:write", allowed_models=[live])
    assert own.call("PATCH", f"/api/v1/deployments/{live}", {"limits": {"concurrency": 1}}).status_code == 200


@pytest.mark.slow
def test_a_deployment_that_no_cell_serves_fails_with_its_reason_in_time(
    acme: Deposit, live: str, digits: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "DEADLINE_MS", 300)
    for document in (
        {"deployment": "live", "inputs": {"image": [[[[0] * 32] * 32]]}},
        {"deployment": "live", "dataset": "digits"},
    ):
        job = predicted(acme, document)
        assert worked().state == State.FAILED
        assert shown(job)["error"]["code"] == "model_loading"

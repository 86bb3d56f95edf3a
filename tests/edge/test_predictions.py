"""/api/v1/predictions: jobs that predict, submitted, waited for, listed, downloaded and cancelled at the edge."""

from __future__ import annotations

import http.client
import io
import json
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.edge.house import PREDICT, House

pytestmark = pytest.mark.slow

PATH = "/api/v1/predictions"
ROW = [index / 64 for index in range(64)]
INPUTS = {"deployment": "mlp", "inputs": {"x": [ROW]}}


@pytest.fixture(scope="module")
def working(house: House) -> Iterator[House]:
    house.node.start("worker", "scheduler")
    yield house
    for name in ("worker", "scheduler"):
        house.node.stop(name)


def test_an_idempotency_key_gets_the_first_answer_again(house: House) -> None:
    first = house.post(PATH, INPUTS, Idempotency_Key="once")
    again = house.post(PATH, INPUTS, Idempotency_Key="once")
    assert (first.status, again.status) == (202, 202)
    assert again.json == first.json
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = house.post(PATH, {**INPUTS, "inputs": {"x": [ROW, ROW]}}, Idempotency_Key="once")
    assert (other.status, other.code) == (409, "idempotency_conflict")
    assert house.post(PATH, INPUTS, Idempotency_Key="bad key").code == "malformed_header"


def test_a_waiting_prediction_is_cancelled(house: House) -> None:
    """No worker runs yet in this file."""
    id = house.post(PATH, INPUTS).json["id"]
    answer = house.post(f"{PATH}/{id}/cancel", {})
    assert (answer.status, answer.json["state"]) == (202, "cancelled"), answer.body
    assert house.get(f"{PATH}/{id}").json["state"] == "cancelled"
    assert house.post(f"{PATH}/{id}/cancel", {}).status == 202
    assert house.get(f"{PATH}/{id}/output").status == 404


def test_a_key_bound_to_other_deployments_sees_no_prediction_of_this_one(house: House) -> None:
    id = house.post(PATH, INPUTS).json["id"]
    bound = house.key("predict", allowed_models=["another"])
    for method, path in (("GET", f"{PATH}/{id}"), ("GET", f"{PATH}/{id}/output"), ("POST", f"{PATH}/{id}/cancel")):
        answer = house.call(method, path, key=bound)
        assert (answer.status, answer.code) == (403, "model_not_allowed"), path
    assert house.get(PATH, key=bound).json["data"] == []
    own = house.key("predict", allowed_models=["mlp"])
    assert house.get(f"{PATH}/{id}", key=own).status == 200
    assert house.get(PATH, key=own).json["data"][0]["id"] == id


def test_a_stream_tells_nothing_more_to_a_key_that_was_revoked(house: House) -> None:
    id = house.post(PATH, INPUTS).json["id"]
    made = house.post("/api/v1/keys", {"name": "watcher", "scopes": ["jobs:read"]}).json
    connection = http.client.HTTPConnection("127.0.0.1", house.node.port, timeout=30)
    headers = {"Authorization": f"Bearer {made['secret']}"}
    connection.request("GET", f"/api/v1/jobs/{id.replace('pred_', 'job_')}/events", headers=headers)
    stream = connection.getresponse()
    assert (stream.status, stream.readline()) == (200, b": stream\n")
    assert house.call("DELETE", f"/api/v1/keys/{made['id']}").status == 204
    time.sleep(1.5)
    assert house.post(f"{PATH}/{id}/cancel", {}).status == 202
    told = stream.read()
    connection.close()
    assert b"queued" in told
    assert b"cancelled" not in told


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"deployment": "mlp"}, 422, "invalid_field"),
        ({"deployment": "mlp", "rows": [{"a": 1}], "inputs": {"x": [ROW]}}, 422, "invalid_field"),
        ({"inputs": {"x": [ROW]}}, 422, "invalid_field"),
        ({"deployment": "mlp", "input": {}}, 422, "invalid_field"),
        ({"deployment": "nothing", "inputs": {"x": [ROW]}}, 404, "not_found"),
        ({"deployment": "mlp", "dataset": "nothing@1"}, 404, "not_found"),
        ([], 422, "invalid_field"),
    ],
)
def test_each_wrong_submission_is_refused(house: House, body: object, status: int, code: str) -> None:
    answer = house.post(PATH, body)
    assert (answer.status, answer.code) == (status, code), answer.body


def test_other_tenants_predictions_do_not_exist(house: House) -> None:
    id = house.post(PATH, INPUTS).json["id"]
    for path in (f"{PATH}/{id}", f"{PATH}/{id}/output", f"{PATH}/pred_nonsense"):
        assert house.get(path, key="beta").status == 404, path
    assert house.post(f"{PATH}/{id}/cancel", {}, key="beta").status == 404
    assert house.get(f"{PATH}/{id}", key=house.key("jobs:write")).code == "scope_missing"


def test_a_prediction_is_submitted_and_read(working: House) -> None:
    submitted = working.post(PATH, INPUTS)
    assert submitted.status == 202, submitted.body
    id = submitted.json["id"]
    assert submitted.headers["location"] == f"{PATH}/{id}"
    assert submitted.json | {"id": "", "created_at": ""} == {
        "id": "",
        "state": "queued",
        "deployment": "mlp",
        "model": None,
        "version": None,
        "progress": None,
        "output": None,
        "error": None,
        "created_at": "",
        "finished_at": None,
        "expires_at": None,
    }
    done = working.get(f"{PATH}/{id}", Prefer="wait=30")
    assert (done.status, done.headers["preference-applied"]) == (200, "wait")
    assert done.json["state"] == "succeeded", done.body
    assert done.json["output"]["predictions"] == working.post(PREDICT, {"inputs": {"x": [ROW]}}).json["predictions"]
    assert done.json["output"]["download"] is None
    assert working.get(f"{PATH}/{id}/output").status == 404


def test_a_wait_at_submission_answers_201(working: House) -> None:
    answer = working.post(PATH, INPUTS, Prefer="wait=30")
    assert (answer.status, answer.headers["preference-applied"]) == (201, "wait"), answer.body
    assert answer.json["state"] == "succeeded"


def test_a_data_sets_output_is_downloaded_in_order(working: House) -> None:
    features = np.random.default_rng(0).normal(size=(300, 64)).astype("f4")
    file = io.BytesIO()
    np.savez(file, features=features, label=np.arange(300) % 10)
    uploaded = working.put("/api/v1/datasets/many/content?format=npz", file.getvalue(), Prefer="wait=40")
    assert uploaded.json["state"] == "ready", uploaded.body
    working.shell("alpha", _RENAMED)
    answer = working.post(PATH, {"deployment": "features", "dataset": "many@1"}, Prefer="wait=60", timeout=90)
    assert answer.json["state"] == "succeeded", answer.body
    assert (answer.json["output"]["rows"], answer.json["output"]["predictions"]) == (300, None)
    output = working.get(answer.json["output"]["download"])
    assert (output.status, output.headers["content-type"]) == (200, "application/jsonl")
    lines = [json.loads(line) for line in output.body.splitlines()]
    assert len(lines) == 300
    asked = working.post(PREDICT, {"inputs": {"x": features.tolist()}}).json["predictions"]
    assert [line["label"] for line in lines] == [one["label"] for one in asked]
    assert working.get(answer.json["output"]["download"], key="beta").status == 404


_RENAMED = """
import onnx
from strongroom.deployments import services as deployments
from strongroom.registry import services as registry
from strongroom.vault import services as vault
version = registry.resolve("mlp", 1)
model = onnx.load_from_string(vault.read_bytes(version.artefact))
model.graph.input[0].name = "features"
for node in model.graph.node:
    node.input[:] = ["features" if name == "x" else name for name in node.input]
signature = version.signature
signature["inputs"][0]["name"] = "features"
artefact = vault.seal_bytes(tenant_id, "model", model.SerializeToString())
result = {"signature": signature, "metrics": {}, "parameters": 1, "evaluation": None}
registry.register(name="features", task="classification", artefact=artefact, result=result, lineage={})
versions = [{"model": "features", "version": 1, "weight": 100, "mode": "live"}]
deployments.deploy(SYSTEM, {"name": "features", "versions": versions})
"""


def test_the_list_is_in_pages_newest_first(working: House) -> None:
    ids = [working.post(PATH, INPUTS).json["id"] for _ in range(3)]
    first = working.get(f"{PATH}?limit=2").json
    second = working.get(f"{PATH}?limit=2&cursor={first['next_cursor']}").json
    assert [row["id"] for row in first["data"] + second["data"]][:3] == ids[::-1]
    assert first["has_more"]
    assert working.get(f"{PATH}?limit=0").status == 422
    assert working.get(f"{PATH}?state=odd").status == 422
    assert working.get(f"{PATH}?cursor=odd").code == "malformed_cursor"
    assert working.get(PATH, key="beta").json["data"] == []

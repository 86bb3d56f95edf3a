"""/predictions: rows, inputs or a data set answered as a job; waited for, downloaded, cancelled, expired."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import psycopg
import pytest

from strongroom import ids
from tests.acceptance.rest.shapes import PREDICTION, document, page, problem
from tests.edge.house import CLASSES, network
from tests.edge.house import expected as answer_of_mlp
from tests.journeys import Journey, lines, row, table, training, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PATH = "/api/v1/predictions"


def finished(house: Journey, id: str) -> Any:
    def read() -> Any:
        answer = house.get(f"{PATH}/{id}", Prefer="wait=20")
        assert answer.headers["preference-applied"] == "wait"
        return answer.json if answer.json["finished_at"] else None

    return document(until(read, 90), PREDICTION)


def test_rows_are_answered_later(house: Journey) -> None:
    rows = [row(), row(value=2.0)]
    answer = house.post(PATH, {"deployment": "weather", "rows": rows, "inputs": None, "dataset": None})
    assert answer.status == 202
    body = document(answer.json, PREDICTION)
    assert answer.headers["location"] == f"{PATH}/{body['id']}"
    assert (body["state"], body["deployment"]) == ("queued", "weather")
    for name in ("model", "version", "progress", "output", "error", "finished_at", "expires_at"):
        assert body[name] is None, name
    done = finished(house, body["id"])
    assert (done["state"], done["model"], done["version"], done["error"]) == ("succeeded", "weather", 1, None)
    assert done["progress"] == {"fraction": 1.0, "items": 2, "items_total": 2}
    assert (done["output"]["rows"], done["output"]["download"]) == (2, None)
    at_once = house.predict("weather", rows).json["predictions"]
    assert [one["label"] for one in done["output"]["predictions"]] == [one["label"] for one in at_once]
    assert done["expires_at"] > done["finished_at"]
    job = house.get(f"/api/v1/jobs/job_{body['id'].removeprefix('pred_')}").json
    assert (job["kind"], job["state"]) == ("predict", "succeeded")
    problem(house.get(f"{PATH}/{body['id']}/output"), 404, "not_found")


def test_inputs_can_be_waited_for(house: Journey) -> None:
    values = np.linspace(-1, 1, 64, dtype="f4").reshape(1, 64)
    answer = house.post(PATH, {"deployment": "mlp", "inputs": {"x": values.tolist()}}, Prefer="wait=30")
    assert (answer.status, answer.headers["preference-applied"]) == (201, "wait")
    found = document(answer.json, PREDICTION)["output"]["predictions"][0]["scores"]
    np.testing.assert_allclose([found[name] for name in CLASSES], answer_of_mlp(values)[0], atol=1e-5)
    problem(house.post(f"{PATH}/{answer.json['id']}/cancel"), 409, "job_finished")


def test_a_data_set_is_answered_in_its_order_as_a_download(house: Journey) -> None:
    house.deposit("ahead", table(500, seed=21))
    answer = house.post(PATH, {"deployment": "weather", "dataset": "ahead@1"})
    assert answer.status == 202
    done = finished(house, answer.json["id"])
    assert (done["state"], done["error"]) == ("succeeded", None)
    download = f"{PATH}/{done['id']}/output"
    assert done["output"] == {"predictions": None, "rows": 500, "download": download}
    assert done["progress"] == {"fraction": 1.0, "items": 500, "items_total": 500}
    got = house.get(download)
    assert got.status == 200
    found = lines(got.body)
    given = [line.split(",") for line in table(500, seed=21).decode().splitlines()]
    rows = [dict(zip(given[0][:-1], map(float, line[:-1]), strict=True)) for line in given[1:]]
    at_once = house.predict("weather", rows).json["predictions"]
    assert [one["label"] for one in found] == [one["label"] for one in at_once]
    assert set(found[0]) == {"label", "score", "scores"}
    problem(house.get(download, key="beta"), 404, "not_found")
    newest = house.post(PATH, {"deployment": "weather", "dataset": "ahead"}, Prefer="wait=50")
    assert (newest.status, newest.json["output"]["rows"]) == (201, 500)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"deployment": "weather"},
        {"deployment": "weather", "rows": [row()], "dataset": "weather"},
        {"deployment": "weather", "rows": []},
        {"deployment": "weather", "inputs": [1]},
        {"deployment": "weather", "dataset": "weather@x"},
        {"deployment": 7, "rows": [row()]},
        {"deployment": "weather", "row": [row()]},
    ],
)
def test_exactly_one_of_three_is_asked(house: Journey, body: Any) -> None:
    answer = house.post(PATH, body)
    problem(answer, 422, answer.code)


def test_what_is_not_there_cannot_be_asked(house: Journey) -> None:
    problem(house.post(PATH, {"deployment": "none", "rows": [row()]}), 404, "not_found")
    problem(house.post(PATH, {"deployment": "weather", "dataset": "none"}), 404, "not_found")
    problem(house.post(PATH, {"deployment": "weather", "dataset": "weather@9"}), 404, "not_found")


def test_a_prediction_that_cannot_be_made_fails_with_its_reason(house: Journey) -> None:
    answer = house.post(PATH, {"deployment": "mlp", "inputs": {"x": [[0.5] * 3]}}, Prefer="wait=30")
    assert answer.status in (201, 422), answer.body
    if answer.status == 201:
        failed = document(answer.json, PREDICTION)
        assert (failed["state"], failed["output"]) == ("failed", None)
        assert "x" in failed["error"]["message"]
    other = house.post(PATH, {"deployment": "mlp", "dataset": "weather@1"}, Prefer="wait=50")
    failed = document(other.json, PREDICTION)
    assert (other.status, failed["state"], failed["output"]) == (201, "failed", None)
    assert failed["error"]["code"] == "dataset_contradicts_spec"


def test_predictions_are_listed_newest_first(house: Journey) -> None:
    listed = page(house.get(f"{PATH}?state=succeeded&limit=200"), PREDICTION)
    assert listed
    assert {one["state"] for one in listed} == {"succeeded"}
    assert [one["created_at"] for one in listed] == sorted((one["created_at"] for one in listed), reverse=True)
    assert problem(house.get(f"{PATH}?state=asleep"), 422, "invalid_field")["errors"][0]["path"] == "?state"


def test_one_that_waits_can_be_cancelled(house: Journey) -> None:
    """Its deployment's model is not loaded anywhere: nothing answers it."""
    house.node.stop("worker")
    try:
        waiting = house.post(PATH, {"deployment": "weather", "rows": [row()]})
        assert waiting.status == 202
        held = house.post(PATH, {"deployment": "weather", "rows": [row()]}, Prefer="wait=1")
        assert (held.status, held.headers["preference-applied"], held.json["state"]) == (202, "wait", "queued")
        problem(house.get(f"{PATH}/{held.json['id']}/output"), 409, "job_unfinished")
        for id in (waiting.json["id"], held.json["id"]):
            answer = house.post(f"{PATH}/{id}/cancel")
            assert (answer.status, document(answer.json, PREDICTION)["state"]) == (202, "cancelled")
            assert answer.headers["location"] == f"{PATH}/{id}"
            assert house.get(f"{PATH}/{id}").json["output"] is None
    finally:
        house.node.start("worker")


def test_what_has_expired_is_gone(house: Journey) -> None:
    made = house.post(PATH, {"deployment": "weather", "rows": [row()]}, Prefer="wait=30").json
    kept = house.post(PATH, {"deployment": "weather", "dataset": "weather"}, Prefer="wait=50").json
    for one in (made, kept):
        assert one["state"] == "succeeded"
        age(house, one["id"])
    for path in (f"{PATH}/{made['id']}", f"{PATH}/{kept['id']}", f"{PATH}/{kept['id']}/output"):
        problem(house.get(path), 410, "expired")
    assert not {made["id"], kept["id"]} & {one["id"] for one in house.get(f"{PATH}?limit=200").json["data"]}


def age(house: Journey, id: str) -> None:
    """As if a day had gone by."""
    job, past = ids.parse("pred", id), "2020-01-01T00:00:00Z"
    assert job is not None
    artefacts = (
        "UPDATE vault_artefact SET expires_at = %s WHERE id = (SELECT output_artefact_id FROM jobs_job WHERE id = %s)"
    )
    jobs = "UPDATE jobs_job SET expires_at = %s WHERE id = %s"
    if house.node.mode == "production":
        with psycopg.connect(house.node.environment["STRONGROOM_SYSTEM_DATABASE_URL"]) as connection:
            for statement in (artefacts, jobs):
                connection.execute(statement, (past, job))  # type: ignore[call-overload]  # text made here
        return
    lite = sqlite3.connect(house.node.home / "strongroom.sqlite3", timeout=20)
    with lite:
        for statement in (artefacts, jobs):
            lite.execute(statement.replace("%s", "?"), ("2020-01-01 00:00:00", job.hex))
    lite.close()


def test_numbers_vectors_and_other_outputs_have_their_own_words(house: Journey) -> None:
    house.deposit("slope", b"a,b,label\n" + b"".join(b"%d,%d,%d.5\n" % (n, n % 7, n * 3) for n in range(60)))
    line = training("slope", dataset="slope", epochs=1, register={"model": "slope", "deploy": "slope"})
    house.trained({**line, "task": "regression"})
    house.ready("alpha", "slope")
    found = house.predict("slope", [{"a": 1, "b": 2}]).json["predictions"]
    assert list(found[0]) == ["value"]
    assert isinstance(found[0]["value"], float)
    for task, key in (("embedding", "vector"), ("other", "outputs")):
        uploaded = house.put(f"/api/v1/models/{task}/content?format=onnx", network(5)).json
        spec = {"kind": "import", "name": task, "artefact": uploaded["artefact"], "model": task, "task": task}
        house.succeeded(house.submit({**spec, "classes": None}))
        house.deployed(task, task)
        answer = house.post(f"/api/v1/deployments/{task}/predict", {"inputs": {"x": [[0.5] * 64]}})
        one = answer.json["predictions"][0]
        assert list(one) == [key]
        values = one[key] if key == "vector" else next(iter(one[key].values()))
        np.testing.assert_allclose(values, answer_of_mlp([[0.5] * 64], 5)[0], atol=1e-5)

"""/deployments: made, bounded, switched, stopped, and what a prediction on one says, right and wrong."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.acceptance.rest.shapes import DEPLOYMENT, document, page, problem
from tests.edge.house import CLASSES, Answer, network
from tests.edge.house import expected as answer_of_mlp
from tests.journeys import CLASSES as WEATHERS
from tests.journeys import COLUMNS, Journey, row, training, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DEPLOYMENTS = "/api/v1/deployments"


def live(model: str, version: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [{"model": model, "version": version, "weight": 100, "mode": "live", **more}]


def predicted(house: Journey, body: Any, name: str = "mlp", **headers: str) -> Answer:
    return house.post(f"{DEPLOYMENTS}/{name}/predict", body, **headers)


def test_a_deployment_is_made_and_shown(house: Journey) -> None:
    answer = house.post(DEPLOYMENTS, {"name": "shown", "versions": live("mlp"), "device": "cpu"})
    assert answer.status == 202
    assert answer.headers["location"] == f"{DEPLOYMENTS}/shown"
    assert document(answer.json, DEPLOYMENT)["state"] in ("loading", "ready")
    body = document(house.get(f"{DEPLOYMENTS}/shown", Prefer="wait=40").json, DEPLOYMENT)
    assert body == {
        "id": body["id"],
        "name": "shown",
        "state": "ready",
        "versions": live("mlp"),
        "device": "cpu",
        "replicas": {"min": 1, "max": 1, "ready": 1},
        "batching": {"max_batch": 64, "max_delay_ms": 0},
        "context_tokens": None,
        "share": False,
        "limits": {"requests_per_second": None, "concurrency": 64, "deadline_ms": 30_000},
        "output_policy": {"top_k": None, "decimals": None, "scores": True},
        "error": None,
        "urls": {"predict": f"{DEPLOYMENTS}/shown/predict", "open_inference": "/v2/models/shown"},
        "created_at": body["created_at"],
    }
    assert "shown" in [one["name"] for one in page(house.get(DEPLOYMENTS), DEPLOYMENT)]
    problem(house.post(DEPLOYMENTS, {"name": "shown", "versions": live("mlp")}), 409, "name_taken")


def test_a_caller_may_wait_and_a_stopped_name_is_free_again(house: Journey) -> None:
    for _ in range(2):
        answer = house.post(DEPLOYMENTS, {"name": "fleeting", "versions": live("mlp")}, Prefer="wait=40")
        assert (answer.status, answer.headers.get("preference-applied")) == (201, "wait"), answer.body
        assert (answer.json["state"], answer.json["replicas"]["ready"]) == ("ready", 1)
        assert predicted(house, {"inputs": {"x": [[0.5] * 64]}}, "fleeting").status == 200
        stopped = house.delete(f"{DEPLOYMENTS}/fleeting")
        assert (stopped.status, document(stopped.json, DEPLOYMENT)["state"]) == (202, "draining")
        problem(house.get(f"{DEPLOYMENTS}/fleeting"), 404, "not_found")
        problem(house.delete(f"{DEPLOYMENTS}/fleeting"), 404, "not_found")
        refused = house.post(f"{DEPLOYMENTS}/fleeting/predict", {"inputs": {"x": [[0.5] * 64]}})
        assert refused.status in (200, 404), "until the change is seen, within a second"


@pytest.mark.parametrize(
    ("versions", "path"),
    [
        ([], "/versions"),
        ([{"model": "mlp", "version": 1, "weight": 50, "mode": "live"}] * 2, "/versions"),
        ([{"model": "mlp", "version": 1, "weight": 50, "mode": "live"}], "/versions/0/weight"),
        ([{"model": "mlp", "version": 1, "weight": 100, "mode": "shadow"}], "/versions/0/mode"),
        ([{"model": "mlp", "version": 1, "share": 100}], "/versions/0/share"),
        ("mlp", "/versions"),
    ],
)
def test_traffic_is_one_live_version_of_weight_100(house: Journey, versions: Any, path: str) -> None:
    answer = house.post(DEPLOYMENTS, {"name": "odd", "versions": versions})
    assert answer.code in ("invalid_field", "extra_forbidden")
    body = problem(answer, 422, answer.code)
    assert body["errors"][0]["path"] == path
    problem(house.get(f"{DEPLOYMENTS}/odd"), 404, "not_found")


def test_what_cannot_be_served_is_refused(house: Journey) -> None:
    for wrong in (live("none"), live("mlp", 9)):
        answer = house.post(DEPLOYMENTS, {"name": "odd", "versions": wrong})
        assert answer.status in (404, 422), answer.body
        assert answer.json["errors"][0]["path"] == "/versions/0"
    body = {"name": "odd", "versions": live("mlp"), "device": "abacus"}
    assert problem(house.post(DEPLOYMENTS, body), 422, "invalid_field")["errors"][0]["path"] == "/device"
    body = {"name": "odd", "versions": live("mlp"), "limits": {"concurrency": 0}}
    assert problem(house.post(DEPLOYMENTS, body), 422, "invalid_field")["errors"][0]["path"] == "/limits/concurrency"
    body = {"name": "Odd Name", "versions": live("mlp")}
    assert problem(house.post(DEPLOYMENTS, body), 422, "invalid_field")["errors"][0]["path"] == "/name"


def test_rows_are_answered_with_labels_and_scores(house: Journey) -> None:
    answer = house.predict("weather", [row(value=0.0), row(value=2.0)])
    assert answer.status == 200
    body = answer.json
    assert set(body) == {"deployment", "model", "version", "predictions", "usage"}
    assert (body["deployment"], body["model"], body["version"]) == ("weather", "weather", 1)
    assert set(body["usage"]) == {"items", "queue_ms", "compute_ms"}
    assert body["usage"]["items"] == 2
    for found in body["predictions"]:
        assert set(found) == {"label", "score", "scores"}
        assert set(found["scores"]) == set(WEATHERS)
        assert found["score"] == max(found["scores"].values()) == found["scores"][found["label"]]
        assert abs(sum(found["scores"].values()) - 1) < 1e-5


def test_tensors_files_and_arrays_are_answered_alike(house: Journey) -> None:
    values = np.linspace(-1, 1, 128, dtype="f4").reshape(2, 64)
    wanted = answer_of_mlp(values)
    buffer = io.BytesIO()
    np.save(buffer, values)
    for answer in (
        predicted(house, {"inputs": {"x": values.tolist()}}),
        predicted(house, buffer.getvalue(), Content_Type="application/x-npy"),
    ):
        assert answer.status == 200, answer.body
        scores = [[one["scores"][name] for name in CLASSES] for one in answer.json["predictions"]]
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
    csv = ",".join(COLUMNS) + "\n" + "0.5,0.5,0.5,0.5\n0,0,0,0\n"
    by_file = predicted(house, csv.encode(), "weather", Content_Type="text/csv")
    assert by_file.json["predictions"] == house.predict("weather", [row(), row(value=0.0)]).json["predictions"]


def test_pictures_are_decoded_and_resized(house: Journey) -> None:
    random = np.random.default_rng(0)
    data = io.BytesIO()
    np.savez(data, image=random.integers(0, 255, (40, 3, 8, 8), dtype=np.uint8), label=np.arange(40) % 2)
    house.deposit("tiles", data.getvalue(), "format=npz&modality=image")
    house.trained(training("tiles", dataset="tiles", epochs=1, register={"model": "tiles", "deploy": "tiles"}))
    house.ready("alpha", "tiles")
    for kind, size in (("PNG", 8), ("JPEG", 50)):
        picture = io.BytesIO()
        Image.new("RGB", (size, size), (200, 10, 10)).save(picture, kind)
        answer = predicted(house, picture.getvalue(), "tiles", Content_Type=f"image/{kind.lower()}")
        assert (answer.status, answer.json["usage"]["items"]) == (200, 1), answer.body
        assert set(answer.json["predictions"][0]["scores"]) == {"0", "1"}
    wrong = predicted(house, b"no picture", "tiles", Content_Type="image/png")
    problem(wrong, 422, "invalid_field")
    body = problem(predicted(house, {"inputs": {"image": [[[[0, 255], [12, 7]]]]}}, "tiles"), 422, "invalid_field")
    assert body["title"] == "The input does not fit the model"
    assert body["detail"] == "input 'image' has shape [1, 1, 2, 2], expected [-1, 3, 8, 8]"
    assert body["errors"] == [
        {
            "path": "/inputs/image",
            "code": "shape",
            "message": "has shape [1, 1, 2, 2]",
            "hint": "expected [-1, 3, 8, 8]",
        }
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rows": [row()], "inputs": {"x": [[0.0] * 64]}},
        {"rows": []},
        {"rows": {}},
        {"rows": [7]},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": {"y": [[0.0] * 64]}},
        {"inputs": {"x": [[0.0] * 63]}},
        {"inputs": {"x": [[0.0] * 64, [0.0] * 63]}},
        {"inputs": {"x": [["a"] * 64]}},
        {"inputs": {"x": [[None] * 64]}},
        {"inputs": {"x": "text"}},
        {"inputs": {"x": []}},
        {"input": {"x": [[0.0] * 64]}},
        {"rows": [{"nothing": 1}]},
    ],
)
def test_an_input_that_does_not_fit_is_422(house: Journey, body: Any) -> None:
    answer = predicted(house, body)
    found = problem(answer, 422, answer.code)
    assert found["code"] in ("invalid_field", "extra_forbidden")
    assert found["errors"]


def test_the_output_policy_bounds_what_is_told(house: Journey) -> None:
    house.deployed("policy", "mlp", output_policy={"top_k": 2, "decimals": 2})
    found = predicted(house, {"inputs": {"x": [[0.5] * 64]}}, "policy").json["predictions"][0]
    assert len(found["scores"]) == 2
    assert all(value == round(value, 2) for value in [found["score"], *found["scores"].values()])
    changed = house.call("PATCH", f"{DEPLOYMENTS}/policy", {"output_policy": {"scores": False}})
    assert (changed.status, changed.json["output_policy"]["scores"]) == (200, False)

    def hidden() -> bool:
        one = predicted(house, {"inputs": {"x": [[0.5] * 64]}}, "policy").json["predictions"][0]
        return set(one) == {"label", "score", "scores"} and one["scores"] is None

    until(hidden, 5)


def test_limits_are_kept(house: Journey) -> None:
    house.deployed("bounded", "mlp", limits={"requests_per_second": 2})
    answers = [predicted(house, {"inputs": {"x": [[0.5] * 64]}}, "bounded") for _ in range(12)]
    refused = [answer for answer in answers if answer.status != 200]
    assert answers[0].status == 200
    assert refused
    for answer in refused:
        problem(answer, 429, "rate_limited")


def test_more_at_once_than_allowed_are_refused(house: Journey) -> None:
    house.deployed("narrow", "mlp", limits={"concurrency": 1}, batching={"max_batch": 1, "max_delay_ms": 0})
    body = json.dumps({"inputs": {"x": [[0.5] * 64] * 5000}}).encode()
    answers: list[Answer] = []

    def call() -> None:
        answers.append(predicted(house, body, "narrow", Content_Type="application/json"))

    for _ in range(5):
        threads = [threading.Thread(target=call) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if any(answer.status == 429 for answer in answers):
            break
    assert {answer.status for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status == 429:
            problem(answer, 429, "concurrency_limited")


def test_a_switch_changes_the_version_without_a_refusal(house: Journey) -> None:
    for seed in (0, 1):
        uploaded = house.put("/api/v1/models/turning/content?format=onnx", network(seed)).json
        spec = {"kind": "import", "name": "turning", "artefact": uploaded["artefact"], "model": "turning"}
        house.succeeded(house.submit({**spec, "task": "classification", "classes": CLASSES}))
    house.deployed("turning", "turning", 1)
    seen: list[Answer] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            seen.append(predicted(house, {"inputs": {"x": [[0.5] * 64]}}, "turning"))

    caller = threading.Thread(target=call)
    caller.start()
    changed = house.call("PATCH", f"{DEPLOYMENTS}/turning", {"versions": live("turning", 2)})
    assert (changed.status, changed.json["versions"]) == (200, live("turning", 2))
    until(lambda: seen and seen[-1].status == 200 and seen[-1].json["version"] == 2, 20)
    stop.set()
    caller.join()
    assert {answer.status for answer in seen} == {200}
    versions = [answer.json["version"] for answer in seen]
    assert versions == sorted(versions), "never back"
    problem(house.call("PATCH", f"{DEPLOYMENTS}/turning", {"name": "other"}), 422, "extra_forbidden")
    problem(house.call("PATCH", f"{DEPLOYMENTS}/none", {"limits": {}}), 404, "not_found")

"""/models: trained or brought along, shown with lineage, put into production, deleted unless served."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.rest.shapes import ID, LINEAGE, MODEL, SHA256, VERSION, document, page, problem
from tests.edge.house import CLASSES, network
from tests.journeys import CLASSES as WEATHERS
from tests.journeys import COLUMNS, Journey, training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

MODELS = "/api/v1/models"


def brought(house: Journey, name: str, seed: int = 0, **more: Any) -> dict[str, Any]:
    """The spec that imports a file that was just uploaded."""
    answer = house.put(f"{MODELS}/{name}/content?format=onnx", network(seed))
    assert answer.status == 201, answer.body
    spec = {"kind": "import", "name": name, "artefact": answer.json["artefact"], "model": name}
    return {**spec, "task": "classification", "classes": CLASSES, **more}


def test_a_trained_version_shows_what_went_into_it(house: Journey) -> None:
    answer = house.get(f"{MODELS}/weather/versions/1")
    assert answer.status == 200
    version = document(answer.json, VERSION)
    assert (version["model"], version["version"], version["task"]) == ("weather", 1, "classification")
    assert (version["state"], version["stage"], version["reasons"], version["format"]) == (
        "ready",
        "candidate",
        [],
        "onnx",
    )
    assert version["size_bytes"] > 0
    assert version["parameters"] > 0
    assert version["signature"] == {
        "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in COLUMNS],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
        "classes": sorted(WEATHERS),
    }
    confusion = version["evaluation"]["confusion"]
    assert [len(line) for line in confusion] == [3, 3, 3]
    assert sum(map(sum, confusion)) == 60, "the test part"
    lineage = version["lineage"]
    assert set(lineage) >= set(LINEAGE)
    job = house.job(lineage["job"])
    dataset = house.get("/api/v1/datasets/weather/versions/1").json
    assert (lineage["dataset"], lineage["dataset_version"]) == ("weather", 1)
    assert (lineage["dataset_fingerprint"], lineage["spec_sha256"]) == (dataset["fingerprint"], job["spec_sha256"])
    assert (lineage["threads"], lineage["parent"]) == (1, None)
    assert lineage["torch_version"].startswith("2.13")
    assert lineage["weights_sha256"]
    assert version["metrics"] == job["result"]["metrics"]


def test_a_model_is_listed_with_its_newest_version(house: Journey) -> None:
    body = document(house.get(f"{MODELS}/weather").json, MODEL)
    assert (body["name"], body["task"], body["latest_version"]) == ("weather", "classification", 1)
    assert body["id"].startswith("mdl_")
    assert body["name"] in [model["name"] for model in page(house.get(MODELS), MODEL)]
    assert [version["version"] for version in page(house.get(f"{MODELS}/weather/versions"), VERSION)] == [1]


def test_a_file_is_brought_along_and_imported(house: Journey) -> None:
    data = network(3)
    answer = house.put(f"{MODELS}/guest/content?format=onnx", data)
    assert answer.status == 201
    body = answer.json
    assert set(body) == {"artefact", "model", "format", "size_bytes", "fingerprint", "expires_at"}
    assert (body["model"], body["format"], body["size_bytes"]) == ("guest", "onnx", len(data))
    assert SHA256.fullmatch(body["fingerprint"])
    assert ID.fullmatch(body["artefact"])
    spec = {"kind": "import", "name": "guest", "artefact": body["artefact"], "model": "guest", "task": "classification"}
    job = house.succeeded(house.submit({**spec, "classes": CLASSES}))
    assert (job["result"]["model"], job["result"]["version"], job["result"]["state"]) == ("guest", 1, "ready")
    version = document(house.get(f"{MODELS}/guest/versions/1").json, VERSION)
    assert version["parameters"] == 64 * 128 + 128 + 128 * 10 + 10
    assert version["signature"]["classes"] == CLASSES
    assert (version["lineage"]["dataset"], version["lineage"]["job"]) == (None, job["id"])
    again = house.post("/api/v1/jobs", {**spec, "classes": CLASSES})
    problem(again, 404, "not_found", ("/artefact", "not_found"))


def test_a_file_that_is_no_model_is_refused_by_its_job(house: Journey) -> None:
    answer = house.put(f"{MODELS}/nonsense/content?format=onnx", b"this is no protobuf" * 10)
    assert answer.status == 201
    spec = {
        "kind": "import",
        "name": "nonsense",
        "artefact": answer.json["artefact"],
        "model": "nonsense",
        "task": "other",
    }
    job = house.ended(house.submit(spec))
    assert (job["state"], job["error"]["code"]) == ("failed", "import_refused")
    assert job["error"]["message"]
    assert job["error"]["hint"]
    problem(house.get(f"{MODELS}/nonsense"), 404, "not_found")


def test_an_import_is_refused_where_it_cannot_be_meant(house: Journey) -> None:
    unknown = {"kind": "import", "name": "x", "artefact": "art_" + "0" * 26, "model": "x", "task": "embedding"}
    problem(house.post("/api/v1/jobs", unknown), 404, "not_found", ("/artefact", "not_found"))
    problem(house.put(f"{MODELS}/x/content?format=pickle", b"x"), 422, "invalid_field")
    other_task = brought(house, "weather", task="embedding", classes=None)
    problem(house.post("/api/v1/jobs", other_task), 422, "invalid_spec")


def test_production_is_one_version(house: Journey) -> None:
    for seed in (1, 2):
        house.succeeded(house.submit(brought(house, "staged", seed)))
    assert document(house.get(f"{MODELS}/staged").json, MODEL)["production_version"] is None
    for number in (1, 2):
        answer = house.call("PATCH", f"{MODELS}/staged/versions/{number}", {"stage": "production"})
        assert (answer.status, document(answer.json, VERSION)["stage"]) == (200, "production")
    assert house.get(f"{MODELS}/staged").json["production_version"] == 2
    assert house.get(f"{MODELS}/staged/versions/1").json["stage"] != "production"
    for wrong in ({"stage": "nowhere"}, {}, {"stage": None}):
        problem(house.call("PATCH", f"{MODELS}/staged/versions/1", wrong), 422, "invalid_field")
    problem(house.call("PATCH", f"{MODELS}/staged/versions/1", {"state": "ready"}), 422, "extra_forbidden")
    assert house.delete(f"{MODELS}/staged/versions/2").status == 204
    assert document(house.get(f"{MODELS}/staged").json, MODEL)["latest_version"] == 1


def test_what_is_served_cannot_be_deleted(house: Journey) -> None:
    problem(house.delete(f"{MODELS}/weather/versions/1"), 409, "in_use")
    problem(house.delete(f"{MODELS}/weather"), 409, "in_use")
    house.succeeded(house.submit(brought(house, "gone", 4)))
    assert house.delete(f"{MODELS}/gone").status == 204
    problem(house.get(f"{MODELS}/gone"), 404, "not_found")
    problem(house.get(f"{MODELS}/gone/versions/1"), 404, "not_found")
    assert "gone" not in [model["name"] for model in house.get(f"{MODELS}?limit=200").json["data"]]


def test_a_model_that_does_not_answer_as_it_learned_is_not_registered(house: Journey) -> None:
    strict = training("strict", epochs=1, export={"parity": {"atol": 1e-30, "rtol": 1e-30}})
    job = house.ended(house.submit(strict))
    assert (job["state"], job["result"], job["error"]["code"]) == ("failed", None, "parity_failed")
    problem(house.get(f"{MODELS}/strict"), 404, "not_found")

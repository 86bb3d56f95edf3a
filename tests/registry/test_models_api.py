"""Models and their versions over the native API: bodies, stages, what is not there, what is in use."""

from __future__ import annotations

import re
from typing import Any

import pytest

from strongroom.deployments import services as deployments
from strongroom.errors import NotFound
from strongroom.registry import services
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.vault import services as vault
from tests.callers import SYSTEM, Deposit

pytestmark = pytest.mark.slow

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
    "classes": ["no", "yes"],
    "task": "classification",
}


def registered(owner: Deposit, name: str = "cats", **more: Any) -> ModelVersion:
    with scope.tenant(owner.id):
        artefact = vault.seal_bytes(owner.id, "model", b"onnx")
        result = {"signature": SIGNATURE, "metrics": {"test/accuracy": 0.9}, "parameters": 7, "evaluation": None}
        return services.register(
            name=name, task="classification", artefact=artefact, result=result, lineage={"parent": None}, **more
        )


def test_a_model_is_shown_to_the_letter(acme: Deposit) -> None:
    registered(acme)
    body = acme.api.get("/api/v1/models/cats").json()
    assert list(body) == [
        "id", "name", "task", "description", "latest_version", "production_version", "created_at"
    ]  # fmt: skip
    assert re.fullmatch(r"mdl_[0-9a-hjkmnp-tv-z]{26}", body["id"])
    assert (body["name"], body["latest_version"], body["production_version"]) == ("cats", 1, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["created_at"])


def test_a_version_is_shown_to_the_letter(acme: Deposit) -> None:
    registered(acme)
    body = acme.api.get("/api/v1/models/cats/versions/1").json()
    assert list(body) == [
        "id", "model", "version", "task", "state", "stage", "reasons", "format", "size_bytes", "parameters",
        "metrics", "evaluation", "signature", "card", "public", "lineage", "created_at",
    ]  # fmt: skip
    assert body["id"].startswith("ver_")
    assert (body["state"], body["stage"], body["reasons"], body["format"]) == ("ready", "candidate", [], "onnx")
    assert body["signature"] == {key: SIGNATURE[key] for key in ("inputs", "outputs", "classes")}


def test_versions_are_listed_newest_first_and_by_pages(acme: Deposit) -> None:
    for _ in range(3):
        registered(acme)
    first = acme.api.get("/api/v1/models/cats/versions?limit=2").json()
    assert ([row["version"] for row in first["data"]], first["has_more"]) == ([3, 2], True)
    rest = acme.api.get(f"/api/v1/models/cats/versions?limit=2&cursor={first['next_cursor']}").json()
    assert ([row["version"] for row in rest["data"]], rest["has_more"], rest["next_cursor"]) == ([1], False, None)


def test_production_is_one_version_and_the_one_before_is_archived(acme: Deposit) -> None:
    for _ in range(2):
        registered(acme)
    for number in (1, 2, 2):
        answer = acme.api.call("PATCH", f"/api/v1/models/cats/versions/{number}", {"stage": "production"})
        assert (answer.status_code, answer.json()["stage"]) == (200, "production")
    assert acme.api.get("/api/v1/models/cats").json()["production_version"] == 2
    assert acme.api.get("/api/v1/models/cats/versions/1").json()["stage"] == "archived"


def test_a_version_that_is_registered_into_production_archives_the_one_before(acme: Deposit) -> None:
    for _ in range(2):
        registered(acme, stage="production")
    assert acme.api.get("/api/v1/models/cats").json()["production_version"] == 2
    stages = [row["stage"] for row in acme.api.get("/api/v1/models/cats/versions").json()["data"]]
    assert stages == ["production", "archived"]


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        ({"stage": "archived"}, "invalid_field", "/stage"),
        ({"stage": 1}, "invalid_field", "/stage"),
        ({}, "invalid_field", "/stage"),
        ({"stage": "production", "note": "x"}, "extra_forbidden", "/note"),
    ],
)
def test_a_version_takes_the_stage_production_only(acme: Deposit, body: Any, code: str, path: str) -> None:
    registered(acme)
    answer = acme.api.call("PATCH", "/api/v1/models/cats/versions/1", body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]


def test_a_rejected_version_is_kept_with_its_reasons_and_goes_nowhere(acme: Deposit) -> None:
    registered(acme, reasons=["parity failed"])
    seen = acme.api.get("/api/v1/models/cats/versions/1").json()
    assert (seen["state"], seen["reasons"]) == ("rejected", ["parity failed"])
    staged = acme.api.call("PATCH", "/api/v1/models/cats/versions/1", {"stage": "production"})
    deployed = acme.api.post("/api/v1/deployments", {"name": "cats", "versions": [{"model": "cats", "version": 1}]})
    for answer in (staged, deployed):
        assert (answer.status_code, answer.json()["code"]) == (422, "version_rejected")


def test_what_a_deployment_serves_is_in_use(acme: Deposit) -> None:
    version = registered(acme)
    with scope.tenant(acme.id):
        deployments.deploy_version(SYSTEM, "cats", version)
    for path in ("/api/v1/models/cats", "/api/v1/models/cats/versions/1"):
        answer = acme.api.delete(path)
        assert (answer.status_code, answer.json()["code"]) == (409, "in_use")


def test_a_deleted_version_is_gone_and_its_key_with_it(acme: Deposit) -> None:
    version = registered(acme)
    assert acme.api.delete("/api/v1/models/cats/versions/1").status_code == 204
    assert acme.api.get("/api/v1/models/cats/versions/1").status_code == 404
    assert acme.api.get("/api/v1/models/cats").status_code == 404
    with scope.tenant(acme.id, write=False):
        row = ModelVersion.objects.select_related("artefact").get(id=version.id)
        assert (row.state, row.signature, bytes(row.artefact.wrapped_data_key)) == ("deleted", None, b"")
        assert row.lineage == {"parent": None}


@pytest.mark.parametrize("name", ["nothing", "Cats", "a%00b", "%FF", "x" * 200])
@pytest.mark.parametrize("tail", ["", "/versions", "/versions/1", "/versions/99999999999999999999"])
def test_what_is_not_there_is_not_found_whatever_its_name(acme: Deposit, name: str, tail: str) -> None:
    answer = acme.api.get(f"/api/v1/models/{name}{tail}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_another_tenants_model_is_not_there(acme: Deposit, globex: Deposit) -> None:
    registered(acme)
    for path in ("/api/v1/models/cats", "/api/v1/models/cats/versions", "/api/v1/models/cats/versions/1"):
        assert globex.api.get(path).status_code == 404
    assert globex.api.delete("/api/v1/models/cats").status_code == 404
    assert globex.api.get("/api/v1/models").json()["data"] == []


def test_an_artefact_that_is_no_uploaded_model_is_not_found(acme: Deposit, globex: Deposit) -> None:
    with scope.tenant(acme.id):
        upload = services.begin_upload("cats")
        upload.draft.fill(b"onnx")
        upload.draft.publish()
        artefact = services.finish_upload(SYSTEM, upload, "00" * 32)["artefact"]
    document = {"kind": "import", "name": "cats", "artefact": artefact, "model": "cats", "task": "other"}
    foreign = globex.api.post("/api/v1/jobs", document)
    assert (foreign.status_code, foreign.json()["errors"][0]["path"]) == (404, "/artefact")
    assert acme.api.post("/api/v1/jobs", document).status_code == 202
    with scope.tenant(acme.id, write=False), pytest.raises(NotFound):
        services.find_model("cats")

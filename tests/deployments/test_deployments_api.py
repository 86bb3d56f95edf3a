"""Deployments over the native API: bodies, what is refused, what is not there. No agent runs: they stay `loading`."""

from __future__ import annotations

import re
from typing import Any

import pytest

from strongroom.deployments import services
from strongroom.deployments.models import Deployment
from strongroom.registry import services as registry
from strongroom.tenants import scope
from tests.callers import SYSTEM, Deposit
from tests.console.test_language_pages import language
from tests.registry.test_models_api import registered

pytestmark = pytest.mark.slow

LIVE = {"model": "cats", "version": 1, "weight": 100, "mode": "live"}


def deployed(owner: Deposit, **document: Any) -> Any:
    return owner.api.post("/api/v1/deployments", {"name": "cats", "versions": [LIVE], **document})


def test_a_new_deployment_is_answered_to_the_letter(acme: Deposit) -> None:
    registered(acme)
    answer = deployed(acme, device="cpu")
    assert (answer.status_code, answer["Location"]) == (202, "/api/v1/deployments/cats")
    body = answer.json()
    assert re.fullmatch(r"dep_[0-9a-hjkmnp-tv-z]{26}", body.pop("id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body.pop("created_at"))
    assert body == {
        "name": "cats",
        "state": "loading",
        "versions": [LIVE],
        "device": "cpu",
        "replicas": {"min": 1, "max": 1, "ready": 0},
        "batching": {"max_batch": 64, "max_delay_ms": 0},
        "context_tokens": None,
        "share": False,
        "limits": {"requests_per_second": None, "concurrency": 64, "deadline_ms": 30000},
        "output_policy": {"top_k": None, "decimals": None, "scores": True},
        "error": None,
        "urls": {"predict": "/api/v1/deployments/cats/predict", "open_inference": "/v2/models/cats"},
    }


def test_a_change_names_what_changes_and_leaves_the_rest(acme: Deposit) -> None:
    registered(acme)
    deployed(acme)
    change = {
        "limits": {"requests_per_second": 5},
        "batching": {"max_batch": 8, "max_delay_ms": 5},
        "output_policy": {"top_k": 3},
    }
    answer = acme.api.call("PATCH", "/api/v1/deployments/cats", change)
    assert answer.status_code == 200
    body = answer.json()
    assert body["limits"] == {"requests_per_second": 5, "concurrency": 64, "deadline_ms": 30000}
    assert body["batching"] == {"max_batch": 8, "max_delay_ms": 5}
    assert body["output_policy"] == {"top_k": 3, "decimals": None, "scores": True}
    assert body["versions"] == [LIVE]
    assert acme.api.get("/api/v1/deployments/cats").json() == body


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"name": "dogs"}, "extra_forbidden", "/name"),
        ({"limits": {"requests": 1}}, "extra_forbidden", "/limits/requests"),
        ({"limits": {"concurrency": 0}}, "invalid_field", "/limits/concurrency"),
        ({"batching": {"max_batch": "8"}}, "invalid_field", "/batching/max_batch"),
        ({"output_policy": {"scores": 1}}, "invalid_field", "/output_policy/scores"),
        ({"versions": []}, "invalid_field", "/versions"),
        ({"versions": [LIVE, LIVE]}, "invalid_field", "/versions"),
        ({"versions": [LIVE | {"weight": 50}]}, "invalid_field", "/versions/0/weight"),
        ({"versions": [LIVE | {"mode": "shadow"}]}, "invalid_field", "/versions/0/mode"),
        ({"context_tokens": 4096}, "invalid_field", "/context_tokens"),  # cats are no language model
        ({"share": True}, "invalid_field", "/share"),
    ],
)
def test_a_change_that_cannot_be_is_refused_at_its_field(acme: Deposit, change: Any, code: str, path: str) -> None:
    registered(acme)
    deployed(acme)
    answer = acme.api.call("PATCH", "/api/v1/deployments/cats", change)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]


def test_a_limit_that_is_null_is_the_usual_one_again(acme: Deposit) -> None:
    registered(acme)
    deployed(acme, limits={"requests_per_second": 5, "concurrency": 2, "deadline_ms": 100})
    nulls = {"requests_per_second": None, "concurrency": None, "deadline_ms": None}
    changed = acme.api.call("PATCH", "/api/v1/deployments/cats", {"limits": nulls}).json()
    assert changed["limits"] == {"requests_per_second": None, "concurrency": 64, "deadline_ms": 30000}


def test_a_language_model_has_no_policy_of_classes(acme: Deposit) -> None:
    """It would be accepted and change nothing."""
    language(acme, "smol")
    versions = [{"model": "smol", "version": 1}]
    refused = acme.api.post(
        "/api/v1/deployments", {"name": "chat", "versions": versions, "output_policy": {"scores": False, "top_k": 3}}
    )
    assert refused.status_code == 422
    assert {problem["path"] for problem in refused.json()["errors"]} == {
        "/output_policy/scores",
        "/output_policy/top_k",
    }
    usual = {"name": "chat", "versions": versions, "output_policy": {"scores": True, "top_k": None}}
    assert acme.api.post("/api/v1/deployments", usual).status_code == 202


def test_a_name_is_taken_once(acme: Deposit, globex: Deposit) -> None:
    for owner in (acme, globex):
        registered(owner)
        assert deployed(owner).status_code == 202
    again = deployed(acme)
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")


def test_the_name_of_one_that_drains_is_free(acme: Deposit) -> None:
    registered(acme)
    first = deployed(acme).json()
    assert acme.api.delete("/api/v1/deployments/cats").status_code == 202
    again = deployed(acme)
    assert again.status_code == 202, again.content
    assert again.json()["id"] != first["id"]
    assert [row["id"] for row in acme.api.get("/api/v1/deployments").json()["data"]] == [again.json()["id"]]


def test_a_version_that_is_not_there_is_not_found_and_so_is_another_tenants(acme: Deposit, globex: Deposit) -> None:
    registered(acme)
    missing = deployed(acme, versions=[LIVE | {"version": 9}])
    foreign = deployed(globex)
    for answer in (missing, foreign):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.json()["errors"][0]["path"] == "/versions/0"


def test_a_stopped_deployment_is_answered_draining_and_then_not_found(acme: Deposit) -> None:
    registered(acme)
    deployed(acme)
    answer = acme.api.delete("/api/v1/deployments/cats")
    assert (answer.status_code, answer.json()["state"]) == (202, "draining")
    for answer in (acme.api.get("/api/v1/deployments/cats"), acme.api.delete("/api/v1/deployments/cats")):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert acme.api.get("/api/v1/deployments").json() == {"data": [], "next_cursor": None, "has_more": False}


@pytest.mark.parametrize("name", ["nothing", "Cats", "a%00b", "%FF", "x" * 200])
def test_what_is_not_there_is_not_found_whatever_its_name(acme: Deposit, name: str) -> None:
    path = f"/api/v1/deployments/{name}"
    for answer in (acme.api.get(path), acme.api.call("PATCH", path, {}), acme.api.delete(path)):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_deployment_whose_model_was_changed_says_so(acme: Deposit) -> None:
    registered(acme)
    deployed(acme)
    with scope.tenant(acme.id):
        Deployment.objects.update(state="failed", error_code="artefact_corrupt")
    body = acme.api.get("/api/v1/deployments/cats").json()
    assert (body["state"], sorted(body["error"])) == ("failed", ["code", "hint", "message"])
    assert body["error"]["code"] == "artefact_corrupt"
    assert "not what was sealed" in body["error"]["message"]


def test_a_job_that_deploys_a_model_of_another_kind_leaves_nothing_of_the_one_before(acme: Deposit) -> None:
    """Else every later change would be refused for what nobody sent."""
    registered(acme)
    deployed(acme, output_policy={"top_k": 3})
    with scope.tenant(acme.id):
        services.deploy_version(SYSTEM, "cats", language(acme, "smol"))
    changed = acme.api.call("PATCH", "/api/v1/deployments/cats", {"limits": {"concurrency": 8}, "context_tokens": 4096})
    assert changed.status_code == 200, changed.content
    with scope.tenant(acme.id):
        services.deploy_version(SYSTEM, "cats", registry.resolve("cats"))
    again = acme.api.call("PATCH", "/api/v1/deployments/cats", {"output_policy": {"top_k": 2}})
    assert (again.status_code, again.json()["context_tokens"]) == (200, None)

"""/keys: made, shown once, bounded, rotated, revoked within a second on every route."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.rest.shapes import KEY, document, page, problem
from tests.acceptance.rest.test_conventions import with_checksum
from tests.journeys import Journey, promised, row, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KEYS = "/api/v1/keys"
REVOKED_SECONDS = 1.0


def test_a_key_is_made_with_its_secret_shown_once(house: Journey) -> None:
    answer = house.post(KEYS, {"name": "ci", "scopes": ["predict", "jobs:write"], "expires_at": None})
    assert answer.status == 201
    body = document(answer.json, KEY, "secret")
    assert answer.headers["location"] == f"{KEYS}/{body['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert body["scopes"] == ["jobs:write", "predict"]
    assert (body["expires_at"], body["allowed_models"], body["allowed_networks"]) == (None, [], [])
    assert (body["last_used_at"], body["revoked_at"]) == (None, None)
    assert body["created_by"]["kind"] == "key"
    alphabet = "[0-9a-hjkmnp-tv-z]"
    assert re.fullmatch(rf"sr_{alphabet}{{10}}_{alphabet}{{58}}", body["secret"])
    assert body["secret"].startswith(body["prefix"] + "_")
    assert with_checksum(body["secret"][:-6]) == body["secret"]
    for shown in (house.get(f"{KEYS}/{body['id']}").json, house.get(KEYS).json["data"][0]):
        assert shown == {name: value for name, value in body.items() if name != "secret"}
    assert page(house.get(KEYS), KEY)


def test_what_a_key_may_hold_is_checked(house: Journey) -> None:
    problem(house.post(KEYS, {}), 422, "invalid_field")
    body = problem(house.post(KEYS, {"name": "a", "scopes": ["predikt"]}), 422, "invalid_field")
    assert body["errors"][0]["path"].startswith("/scopes")
    problem(house.post(KEYS, {"name": "a", "scopes": []}), 422, "invalid_field")
    past = {"name": "a", "scopes": ["predict"], "expires_at": "2020-01-01T00:00:00Z"}
    assert problem(house.post(KEYS, past), 422, "invalid_field")["errors"][0]["path"] == "/expires_at"
    networks = {"name": "a", "scopes": ["predict"], "allowed_networks": ["10.0.0.0/8", "x"]}
    assert problem(house.post(KEYS, networks), 422, "invalid_field")["errors"][0]["path"] == "/allowed_networks/1"


def test_a_key_never_holds_more_than_its_maker(house: Journey) -> None:
    maker = house.key("keys:write", "datasets:read")
    problem(house.post(KEYS, {"name": "more", "scopes": ["datasets:write"]}, key=maker), 403, "scope_missing")
    assert house.post(KEYS, {"name": "as much", "scopes": ["datasets:read"]}, key=maker).status == 201


def test_a_key_can_be_bound_to_deployments_and_networks(house: Journey) -> None:
    bound = house.key("predict", "deployments:read", allowed_models=["mlp"])
    assert house.post("/api/v1/deployments/mlp/predict", {"inputs": {"x": [[0.5] * 64]}}, key=bound).status == 200
    problem(house.predict("weather", key=bound), 403, "model_not_allowed")
    problem(
        house.post("/api/v1/predictions", {"deployment": "weather", "rows": [row()]}, key=bound),
        403,
        "model_not_allowed",
    )
    elsewhere = house.key("predict", "jobs:read", allowed_networks=["203.0.113.0/24"])
    problem(house.predict("weather", key=elsewhere), 403, "network_not_allowed")
    problem(house.get("/api/v1/jobs", key=elsewhere), 403, "network_not_allowed")
    assert house.predict("weather", key=house.key("predict", allowed_networks=["127.0.0.0/8"])).status == 200


def test_a_revoked_key_ends_within_a_second_everywhere(house: Journey) -> None:
    secret = house.key("predict", "jobs:read")
    paths = ["/api/v1/jobs", "/api/v1/predictions"]
    assert house.predict("weather", key=secret).status == 200
    assert [house.get(path, key=secret).status for path in paths] == [200, 200]
    id = next(key["id"] for key in house.get(KEYS).json["data"] if secret.startswith(key["prefix"]))
    assert house.delete(f"{KEYS}/{id}").status == 204
    revoked = time.monotonic()
    until(lambda: house.predict("weather", key=secret).status == 401, 5)
    until(lambda: all(house.get(path, key=secret).status == 401 for path in paths), 5)
    assert time.monotonic() - revoked <= promised(REVOKED_SECONDS)
    problem(house.predict("weather", key=secret), 401, "key_invalid")
    assert house.delete(f"{KEYS}/{id}").status == 204
    assert house.get(f"{KEYS}/{id}").json["revoked_at"] is not None


def test_an_expired_key_looks_like_an_unknown_one(house: Journey) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    secret = house.key("jobs:read", expires_at=soon)
    assert house.get("/api/v1/jobs", key=secret).status == 200
    until(lambda: house.get("/api/v1/jobs", key=secret).status == 401, 5)
    expired = problem(house.get("/api/v1/jobs", key=secret), 401, "key_invalid")
    unknown = problem(house.get("/api/v1/jobs", key=with_checksum("sr_0000000000_" + "0" * 52)), 401, "key_invalid")
    assert {**expired, "request_id": None} == {**unknown, "request_id": None}


def test_rotation_gives_a_new_key_and_ends_the_old_one(house: Journey) -> None:
    old = house.post(KEYS, {"name": "turning", "scopes": ["jobs:read"], "allowed_networks": ["127.0.0.0/8"]}).json
    answer = house.post(f"{KEYS}/{old['id']}/rotate", {})
    assert answer.status == 201
    new = document(answer.json, KEY, "secret")
    same = ("name", "scopes", "allowed_models", "allowed_networks", "expires_at")
    assert [new[name] for name in same] == [old[name] for name in same]
    assert new["id"] != old["id"]
    assert answer.headers["location"] == f"{KEYS}/{new['id']}"
    assert house.get("/api/v1/jobs", key=new["secret"]).status == 200
    until(lambda: house.get("/api/v1/jobs", key=old["secret"]).status == 401, 2)
    assert house.get(f"{KEYS}/{old['id']}").json["revoked_at"] is not None
    problem(house.post(f"{KEYS}/{old['id']}/rotate", {}), 422, "invalid_field")


def test_a_secret_is_never_answered_twice(house: Journey) -> None:
    document = {"name": "once", "scopes": ["predict"]}
    first = house.post(KEYS, document, Idempotency_Key="make-it-once")
    assert first.status == 201
    problem(house.post(KEYS, document, Idempotency_Key="make-it-once"), 409, "idempotency_secret")
    other = {"name": "twice", "scopes": ["predict"]}
    problem(house.post(KEYS, other, Idempotency_Key="make-it-once"), 409, "idempotency_conflict")
    assert [key["name"] for key in house.get(KEYS).json["data"]].count("once") == 1

"""`/budgets`: set, read, listed, removed; for the tenant and for a key; each with its own scope."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom import ids
from strongroom.metering import budgets
from strongroom.tenants import scope
from tests.callers import Api, Deposit

pytestmark = pytest.mark.slow

TENANT = "/api/v1/budgets/tenant"
FIELDS = ["subject", "tokens", "period", "spent", "reserved", "remaining", "window_start"]


def key_of(deposit: Deposit, index: int = 0) -> str:
    return str(deposit.api.get("/api/v1/keys").json()["data"][index]["id"])


def put(api: Api, path: str, body: Any) -> Any:
    answer = api.call("PUT", path, body)
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_the_tenants_budget_is_set_read_changed_and_removed(acme: Deposit) -> None:
    body = put(acme.api, TENANT, {"tokens": 1000, "period": "month"})
    assert list(body) == FIELDS
    start = body.pop("window_start")
    assert start.endswith("-01T00:00:00.000Z")
    expected = {"subject": "tenant", "tokens": 1000, "period": "month", "spent": 0, "reserved": 0, "remaining": 1000}
    assert body == expected
    assert acme.api.get(TENANT).json() == expected | {"window_start": start}
    assert put(acme.api, TENANT, {"tokens": 5})["period"] is None
    assert acme.api.delete(TENANT).status_code == 204
    for method in ("GET", "DELETE"):
        assert acme.api.call(method, TENANT).json()["code"] == "not_found"


def test_a_rotated_keys_budget_is_the_new_ones(acme: Deposit) -> None:
    made = acme.api.post("/api/v1/keys", {"name": "budgeted", "scopes": ["predict"]}).json()
    budget = put(acme.api, f"/api/v1/budgets/{made['id']}", {"tokens": 10})
    rotated = acme.api.post(f"/api/v1/keys/{made['id']}/rotate", {}).json()
    assert acme.api.get(f"/api/v1/budgets/{rotated['id']}").json() == budget | {"subject": rotated["id"]}
    assert acme.api.get(f"/api/v1/budgets/{made['id']}").status_code == 404


def test_a_keys_budget_is_its_own(acme: Deposit) -> None:
    key = key_of(acme)
    path = f"/api/v1/budgets/{key}"
    assert put(acme.api, path, {"tokens": 10, "period": "day"})["subject"] == key
    put(acme.api, TENANT, {"tokens": 20})
    assert acme.api.get(path).json()["tokens"] == 10
    listed = acme.api.get("/api/v1/budgets").json()
    assert [budget["subject"] for budget in listed["data"]] == ["tenant", key]
    page = acme.api.get("/api/v1/budgets?limit=1").json()
    assert page["has_more"]
    rest = acme.api.get(f"/api/v1/budgets?cursor={page['next_cursor']}").json()
    assert [budget["subject"] for budget in rest["data"]] == [key]
    assert acme.api.delete(path).status_code == 204
    assert [budget["subject"] for budget in acme.api.get("/api/v1/budgets").json()["data"]] == ["tenant"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "/tokens"),
        ({"tokens": -1}, "/tokens"),
        ({"tokens": 2**53}, "/tokens"),
        ({"tokens": "10"}, "/tokens"),
        ({"tokens": 1.5}, "/tokens"),
        ({"tokens": True}, "/tokens"),
        ({"tokens": None}, "/tokens"),
        ({"tokens": 10, "period": "week"}, "/period"),
        ({"tokens": 10, "perod": "day"}, "/perod"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_field(acme: Deposit, body: dict[str, Any], path: str) -> None:
    answer = acme.api.call("PUT", TENANT, body)
    assert answer.status_code == 422
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]


def test_no_tokens_at_all_are_a_budget_too(acme: Deposit) -> None:
    assert put(acme.api, TENANT, {"tokens": 0})["remaining"] == 0


def test_the_tenants_budget_is_the_tenants_to_write_and_a_keys_the_keys(acme: Deposit) -> None:
    key = f"/api/v1/budgets/{key_of(acme)}"
    body = {"tokens": 10}
    of_tenant, of_keys, reader = acme.key("tenant:write"), acme.key("keys:write"), acme.key("tenant:read")
    assert of_tenant.call("PUT", TENANT, body).status_code == 200
    assert of_tenant.call("PUT", key, body).json()["errors"][0]["hint"] == "keys:write"
    assert of_keys.call("PUT", key, body).status_code == 200
    assert of_keys.call("PUT", TENANT, body).json()["errors"][0]["hint"] == "tenant:write"
    assert reader.get(TENANT).status_code == reader.get("/api/v1/budgets").status_code == 200
    assert reader.call("DELETE", TENANT).status_code == reader.get(key).status_code == 403


def test_another_tenants_key_has_no_budget_here(acme: Deposit, globex: Deposit) -> None:
    theirs = f"/api/v1/budgets/{key_of(globex)}"
    put(globex.api, theirs, {"tokens": 10})
    for method, body in (("GET", None), ("PUT", {"tokens": 5}), ("DELETE", None)):
        answer = acme.api.call(method, theirs, body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert acme.api.get("/api/v1/budgets").json()["data"] == []
    with scope.tenant(globex.id):
        id = ids.parse("key", theirs.rpartition("/")[2])
        assert budgets.find(id).tokens == 10

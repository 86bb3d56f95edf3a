"""`/usage`: what was counted, by minute, hour or day, by name, in pages; nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom import ids
from strongroom.deployments.models import Deployment
from strongroom.metering.models import Usage
from strongroom.registry.models import Model, ModelVersion
from strongroom.tenants import scope
from tests.callers import Deposit
from tests.depth import examples

pytestmark = pytest.mark.slow

USAGE = "/api/v1/usage"
NOON = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
FIELDS = [
    "start", "deployment", "model", "version", "key", "member", "calls", "items", "errors", "compute_ms", "queue_ms",
    "tokens_in", "tokens_cached", "tokens_out", "tokens_cancelled",
]  # fmt: skip


def served(tenant_id: UUID, name: str, *, state: str = "ready") -> tuple[UUID, UUID]:
    """The ids of a deployment and of its version."""
    with scope.tenant(tenant_id):
        model = Model.objects.create(name=name, task="generation")
        version = ModelVersion.objects.create(model=model, number=3, state="ready", format="gguf", size_bytes=1)
        return Deployment.objects.create(name=name, state=state).id, version.id


def used(tenant_id: UUID, what: tuple[UUID, UUID], principal: UUID, minute: datetime, **counts: int) -> None:
    with scope.tenant(tenant_id):
        Usage.objects.create(
            tenant_id=tenant_id,
            deployment_id=what[0],
            version_id=what[1],
            principal_id=principal,
            minute=minute,
            **({"calls": 1} | counts),
        )


def key_id(deposit: Deposit) -> UUID:
    id = ids.parse("key", deposit.api.get("/api/v1/keys").json()["data"][0]["id"])
    assert id is not None
    return id


def data(deposit: Deposit, query: str = "") -> list[dict[str, Any]]:
    answer = deposit.api.get(f"{USAGE}?{query}")
    assert answer.status_code == 200, answer.content
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


def test_a_row_says_what_who_and_how_much(acme: Deposit) -> None:
    chat, key = served(acme.id, "chat"), key_id(acme)
    counts = {"items": 2, "errors": 1, "tokens_in": 30, "tokens_cached": 20, "tokens_out": 8, "tokens_cancelled": 3}
    used(acme.id, chat, key, NOON, **counts, compute_us=1500, queue_us=250)
    used(acme.id, chat, acme.owner.id, NOON.replace(minute=1))
    second, first = data(acme)
    assert list(first) == FIELDS
    assert first == counts | {
        "start": "2026-11-28T12:00:00.000Z",
        "deployment": "chat",
        "model": "chat",
        "version": 3,
        "key": ids.text("key", key),
        "member": None,
        "calls": 1,
        "compute_ms": 1.5,
        "queue_ms": 0.25,
    }
    assert (second["key"], second["member"]) == (None, ids.text("mem", acme.owner.id))


def test_minutes_are_added_up_to_hours_and_days_of_utc(acme: Deposit) -> None:
    chat, key = served(acme.id, "chat"), key_id(acme)
    for minute in (NOON, NOON.replace(minute=59), NOON.replace(hour=13), NOON.replace(day=27, hour=23, minute=59)):
        used(acme.id, chat, key, minute, tokens_out=5, compute_us=1000)
    hours = data(acme, "by=hour")
    assert [(row["start"][8:16], row["tokens_out"]) for row in hours] == [
        ("28T13:00", 5),
        ("28T12:00", 10),
        ("27T23:00", 5),
    ]
    days = data(acme, "by=day")
    assert [(row["start"][8:16], row["calls"], row["compute_ms"]) for row in days] == [
        ("28T00:00", 3, 3.0),
        ("27T00:00", 1, 1.0),
    ]
    assert len(data(acme, "by=minute")) == 4


def test_filters_narrow_by_deployment_key_and_time(acme: Deposit) -> None:
    chat, other, key = served(acme.id, "chat"), served(acme.id, "other", state="stopped"), key_id(acme)
    for minute in range(4):
        used(acme.id, chat, key, NOON.replace(minute=minute))
    used(acme.id, other, acme.owner.id, NOON)
    assert {row["deployment"] for row in data(acme)} == {"chat", "other"}
    assert [row["deployment"] for row in data(acme, "deployment=other")] == ["other"], "stopped, and still named"
    assert data(acme, "deployment=nothing") == []
    assert len(data(acme, f"key={ids.text('key', key)}")) == 4
    window = "deployment=chat&from=2026-11-28T12:01:00Z&to=2026-11-28T12:03:00Z"
    assert [row["start"][14:16] for row in data(acme, window)] == ["02", "01"]


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 9), by=st.sampled_from(["minute", "hour", "day"]))
def test_pages_hold_every_row_once_and_in_order(acme: Deposit, limit: int, by: str) -> None:
    with scope.tenant(acme.id, write=False):
        is_new = not Usage.objects.exists()
    if is_new:
        versions = [served(acme.id, name) for name in ("chat", "other")]
        for hour in range(4):
            for what in versions:
                for principal in (acme.owner.id, key_id(acme)):
                    for minute in (0, 30):
                        used(acme.id, what, principal, NOON.replace(hour=hour * 7, minute=minute), tokens_in=hour)
    whole = data(acme, f"by={by}&limit=200")
    assert len(whole) == {"minute": 32, "hour": 16, "day": 4}[by]
    found, cursor = [], ""
    while True:
        page = acme.api.get(f"{USAGE}?by={by}&limit={limit}{cursor}").json()
        found += page["data"]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == whole
    assert [row["start"] for row in whole] == sorted((row["start"] for row in whole), reverse=True)


@pytest.mark.parametrize(
    "cursor", ["x", "n_5", "w_1", f"w_1_{'0' * 77}", f"w_1_{'z' * 78}", f"w_9999999999_{'0' * 78}", "w_" + "0" * 120]
)
def test_a_cursor_of_no_page_is_refused(acme: Deposit, cursor: str) -> None:
    answer = acme.api.get(f"{USAGE}?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_cursor")


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("by=week", "?by"),
        ("from=yesterday", "?from"),
        ("to=2026-11-28", "?to"),
        ("key=ten_0", "?key"),
        ("deployment=A", "?deployment"),
        ("limit=201", "?limit"),
        ("form=x", "?form"),
    ],
)
def test_a_query_that_is_none_is_refused_with_its_field(acme: Deposit, query: str, path: str) -> None:
    answer = acme.api.get(f"{USAGE}?{query}")
    assert answer.status_code == 422
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]


def test_nobody_elses_usage_is_seen_and_the_scope_is_needed(acme: Deposit, globex: Deposit) -> None:
    used(globex.id, served(globex.id, "chat"), key_id(globex), NOON)
    assert data(acme) == data(acme, "deployment=chat") == []
    assert data(acme, f"key={ids.text('key', key_id(globex))}") == []
    assert acme.key("usage:read").get(USAGE).status_code == 200
    assert acme.key("tenant:read").get(USAGE).json()["code"] == "scope_missing"

"""Cursor pages: every row once, in order, whatever the size; rows that come in between shift nothing."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom import ids
from strongroom.access.models import ApiKey
from strongroom.audit.models import Entry
from strongroom.audit.services import record
from strongroom.errors import Malformed
from strongroom.rest.pages import page
from strongroom.tenants import scope
from tests.callers import SYSTEM, Deposit
from tests.depth import examples

KEPT = [HealthCheck.function_scoped_fixture]  # the rows are the same for every example


@settings(max_examples=examples(25), suppress_health_check=KEPT)
@given(limit=st.integers(1, 20), count=st.just(13))
def test_all_rows_once_newest_first(acme: Deposit, limit: int, count: int) -> None:
    with scope.tenant(acme.id):
        for number in range(count - ApiKey.objects.filter(name__startswith="n").count()):
            ApiKey.objects.create(name=f"n{number:02}", prefix="x", secret_sha256=bytes([number]) * 32)
        rows = ApiKey.objects.filter(name__startswith="n")
        names: list[str] = []
        cursor = None
        while True:
            found = page(rows, lambda row: {"name": row.name}, limit=limit, cursor=cursor)
            assert len(found["data"]) <= limit
            names += [row["name"] for row in found["data"]]
            cursor = found["next_cursor"]
            assert found["has_more"] == (cursor is not None)
            if cursor is None:
                break
    assert names == [f"n{number:02}" for number in reversed(range(count))]


def test_logs_are_oldest_first_by_number(acme: Deposit) -> None:
    with scope.tenant(acme.id):
        for number in range(5):
            record(SYSTEM, f"a{number}", "test", None)
        rows = Entry.objects.filter(object_kind="test")
        first = page(rows, lambda row: {"action": row.action}, limit=3, oldest_first=True)
        record(SYSTEM, "a5", "test", None)
        rest = page(rows, lambda row: {"action": row.action}, limit=3, cursor=first["next_cursor"], oldest_first=True)
    assert [row["action"] for row in first["data"] + rest["data"]] == ["a0", "a1", "a2", "a3", "a4", "a5"]
    assert rest["next_cursor"] is None


def test_a_row_that_comes_in_between_shifts_nothing(acme: Deposit) -> None:
    first = [acme.api.post("/api/v1/keys", {"name": f"k{n}", "scopes": ["predict"]}).json()["id"] for n in range(4)]
    top = acme.api.get("/api/v1/keys?limit=2").json()
    acme.api.post("/api/v1/keys", {"name": "new", "scopes": ["predict"]})
    rest = acme.api.get(f"/api/v1/keys?limit=3&cursor={top['next_cursor']}").json()
    assert [key["id"] for key in top["data"] + rest["data"]][:4] == first[::-1]


@settings(suppress_health_check=KEPT)
@given(st.text(max_size=40))
def test_text_that_is_no_cursor_is_malformed(db: None, text: str) -> None:
    if not (text.startswith("u_") and ids.parse("u", text) is not None):
        with pytest.raises(Malformed) as refused, scope.tenant(ids.new(), write=False):
            page(ApiKey.objects.all(), lambda row: {}, cursor=text)
        assert refused.value.code == "malformed_cursor"

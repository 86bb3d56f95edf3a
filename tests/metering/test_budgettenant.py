"""`manage.py budgettenant`: the operator sets, changes, reads and takes away a tenant's budget."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.callers import Deposit

pytestmark = pytest.mark.slow


def run(*argv: str) -> Any:
    out = io.StringIO()
    call_command("budgettenant", *argv, stdout=out)
    return json.loads(out.getvalue())


def test_the_operator_sets_what_the_tenant_sees(acme: Deposit) -> None:
    assert run("acme") == {"tenant": "acme", "budget": None}
    made = run("acme", "1000", "day")["budget"]
    assert (made["tokens"], made["period"], made["remaining"]) == (1000, "day", 1000)
    assert acme.api.get("/api/v1/budgets/tenant").json() == made == run("acme")["budget"]
    assert run("acme", "500")["budget"]["period"] is None
    assert run("acme", "none") == run("acme", "none") == {"tenant": "acme", "budget": None}
    assert acme.api.get("/api/v1/budgets/tenant").status_code == 404


@pytest.mark.parametrize("argv", [["nobody"], ["acme", "-1"], ["acme", "1.5"], ["acme", str(2**53)], ["acme", "١"]])
def test_what_makes_no_sense_is_refused(acme: Deposit, argv: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*argv)


def test_a_period_that_is_none_is_refused(acme: Deposit) -> None:
    with pytest.raises(CommandError, match="week"):
        run("acme", "1", "week")

"""`createtenant`, `createoperator` and `limittenant`: one JSON line each, and clear words when they cannot."""

import io
import json
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command

from strongroom.access.models import ApiKey
from strongroom.access.scopes import ALL
from strongroom.tenants import scope
from strongroom.tenants.models import Member, Tenant, User
from strongroom.tenants.services import DEFAULT_LIMITS
from tests.callers import Api


def run(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    (line,) = out.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_tenant_comes_with_its_owner_and_a_key_of_all_scopes(db: None) -> None:
    made = run("createtenant", "acme", "--owner", "Owner@Acme.test")
    assert list(made) == ["tenant", "owner", "password", "api_key"]
    assert (made["tenant"], made["owner"]) == ("acme", "owner@acme.test")
    assert authenticate(username="owner@acme.test", password=made["password"]) is not None
    tenant = Tenant.objects.get(name="acme")
    with scope.tenant(tenant.id):
        assert set(ApiKey.objects.get().scopes) == ALL
        assert Member.objects.get().role == "owner"
    assert Api(made["api_key"]).get("/api/v1/tenant").json()["name"] == "acme"


def test_a_person_who_has_an_account_keeps_the_password(db: None) -> None:
    first = run("createtenant", "acme", "--owner", "owner@acme.test")
    second = run("createtenant", "globex", "--owner", "owner@acme.test")
    assert second["password"] is None
    assert authenticate(username="owner@acme.test", password=first["password"]) is not None


@pytest.mark.parametrize(
    ("name", "owner", "words"),
    [
        ("Acme", "a@acme.test", "lower-case"),
        ("-a", "a@acme.test", "lower-case"),
        ("a" * 64, "a@acme.test", "lower-case"),
        ("new", "nobody", "e-mail address"),
        ("acme", "b@acme.test", "exists"),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing(db: None, name: str, owner: str, words: str) -> None:
    run("createtenant", "acme", "--owner", "a@acme.test")
    with pytest.raises(CommandError, match=words):
        run("createtenant", "--owner", owner, "--", name)
    assert Tenant.objects.count() == 1
    assert not User.objects.filter(email="b@acme.test").exists()


def test_an_operator_is_a_person_and_no_member(db: None) -> None:
    made = run("createoperator", "Op@Example.test")
    assert list(made) == ["email", "password"]
    user = authenticate(username="op@example.test", password=made["password"])
    assert isinstance(user, User)
    assert user.is_operator
    assert run("createoperator", "op@example.test") == {"email": "op@example.test", "password": None}
    with pytest.raises(CommandError, match="e-mail"):
        run("createoperator", "nobody")


def test_a_tenants_limits_are_changed_one_by_one(db: None) -> None:
    run("createtenant", "acme", "--owner", "owner@acme.test")
    assert run("limittenant", "acme") == {"tenant": "acme"} | DEFAULT_LIMITS
    changed = run("limittenant", "acme", "requests_per_second=50", "upload_bytes=none")
    assert changed == {"tenant": "acme"} | DEFAULT_LIMITS | {"requests_per_second": 50, "upload_bytes": None}
    assert run("limittenant", "acme", "upload_bytes=default")["upload_bytes"] == DEFAULT_LIMITS["upload_bytes"]
    assert run("limittenant", "acme")["requests_per_second"] == 50


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["nobody", "storage_bytes=1"], "no tenant 'nobody'"),
        (["acme", "storage=1"], "no limit 'storage'; there are max_running_jobs"),
        (["acme", "storage_bytes=-1"], "must be a whole number, none or default, is '-1'"),
        (["acme", "storage_bytes"], "must be a whole number"),
    ],
)
def test_a_limit_that_is_none_is_said(db: None, told: list[str], words: str) -> None:
    run("createtenant", "acme", "--owner", "owner@acme.test")
    with pytest.raises(CommandError, match=words):
        run("limittenant", *told)

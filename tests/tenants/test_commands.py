"""`createtenant` and `createoperator`: one JSON line each, and clear words when they cannot."""

import io
import json

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command

from strongroom.access.models import ApiKey
from strongroom.access.scopes import ALL
from strongroom.tenants import scope
from strongroom.tenants.models import Member, Tenant, User
from tests.callers import Api


def run(*arguments: str) -> dict[str, str | None]:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    (line,) = out.getvalue().splitlines()
    found: dict[str, str | None] = json.loads(line)
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

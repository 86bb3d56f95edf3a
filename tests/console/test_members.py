"""The people of a tenant: who takes whom in, which roles who gives, and that one owner stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command

from strongroom.access import members
from strongroom.access.models import Generation
from strongroom.access.services import Principal, create, principal_of
from strongroom.audit.models import Entry
from strongroom.errors import Conflict, Denied, Invalid, StrongroomError
from strongroom.tenants import scope
from strongroom.tenants.models import Member, Role, User
from tests.callers import Deposit
from tests.console.browsing import Browser

pytestmark = pytest.mark.slow


def person(acme: Deposit, role: Role) -> Member:
    user = acme.member(role, f"{role.value}@acme.test")
    with scope.tenant(acme.id, write=False):
        return Member.objects.select_related("user", "tenant").get(user=user)


@pytest.fixture
def within(acme: Deposit) -> Any:
    with scope.tenant(acme.id):
        yield acme


def roles(acme: Deposit) -> dict[str, str]:
    with scope.tenant(acme.id, write=False):
        return dict(Member.objects.values_list("user__email", "role"))


# --- the service


def test_a_new_address_gets_an_account_and_its_password(within: Deposit) -> None:
    made = members.add(principal_of(within.owner), email=" New@Example.TEST ", role="viewer")
    assert made.password is not None
    assert made.member.user.email == "new@example.test"
    assert authenticate(username="new@example.test", password=made.password) == made.member.user


def test_a_known_address_keeps_its_password(within: Deposit) -> None:
    known = User.objects.create_user("known@example.test", "their own password")
    made = members.add(principal_of(within.owner), email="known@example.test", role="developer")
    assert (made.member.user, made.password) == (known, None)


def test_an_account_that_another_tenant_made_is_taken_in_by_nobody_else_until_the_operator_vouches(
    acme: Deposit, globex: Deposit
) -> None:
    """Who made it was shown its password, and would come along into the other tenant."""
    with scope.tenant(globex.id):
        first = members.add(principal_of(globex.owner), email="victim@acme.test", role="viewer")
        again = members.add(principal_of(globex.owner), email="second@acme.test", role="viewer").member
        members.remove(principal_of(globex.owner), again)
        members.add(principal_of(globex.owner), email="second@acme.test", role="viewer")  # its own
    assert first.password is not None
    with scope.tenant(acme.id):
        with pytest.raises(Conflict) as refused:
            members.add(principal_of(acme.owner), email="Victim@acme.test", role="admin")
        assert refused.value.errors[0].code == "not_vouched"
    output = StringIO()
    call_command("resetpassword", "victim@acme.test", stdout=output)
    fresh = json.loads(output.getvalue())["password"]
    assert authenticate(username="victim@acme.test", password=first.password) is None
    assert authenticate(username="victim@acme.test", password=fresh) == first.member.user
    with scope.tenant(acme.id):
        assert members.add(principal_of(acme.owner), email="victim@acme.test", role="admin").password is None


@pytest.mark.parametrize("make", ["createoperator", "createtenant"])
def test_the_operators_word_takes_an_account_from_the_tenant_that_made_it(make: str, acme: Deposit) -> None:
    with scope.tenant(acme.id):
        made = members.add(principal_of(acme.owner), email="ops@platform.test", role="viewer")
    given = ["ops@platform.test"] if make == "createoperator" else ["initech", "--owner", "ops@platform.test"]
    output = StringIO()
    call_command(make, *given, stdout=output)
    fresh = json.loads(output.getvalue())["password"]
    assert authenticate(username="ops@platform.test", password=made.password) is None
    assert authenticate(username="ops@platform.test", password=fresh) == made.member.user


@pytest.mark.parametrize(
    ("email", "role", "kind", "path"),
    [
        ("no address", "viewer", Invalid, "/email"),
        ("x@example.test", "king", Invalid, "/role"),
        ("owner@acme.test", "viewer", Conflict, "/email"),
    ],
)
def test_a_wrong_wish_is_refused_at_its_field(
    email: str, role: str, kind: type[StrongroomError], path: str, within: Deposit
) -> None:
    with pytest.raises(kind) as failure:
        members.add(principal_of(within.owner), email=email, role=role)
    assert failure.value.errors[0].path == path


def test_only_an_owner_makes_or_unmakes_an_owner(acme: Deposit) -> None:
    admin, viewer = person(acme, Role.ADMIN), person(acme, Role.VIEWER)
    with scope.tenant(acme.id):
        asks = principal_of(admin)
        for attempt in (
            lambda: members.add(asks, email="x@example.test", role="owner"),
            lambda: members.change_role(asks, viewer, "owner"),
            lambda: members.change_role(asks, admin, "owner"),
            lambda: members.change_role(asks, acme.owner, "viewer"),
            lambda: members.remove(asks, acme.owner),
        ):
            with pytest.raises(Denied):
                attempt()
        members.change_role(principal_of(acme.owner), viewer, "owner")
        members.change_role(principal_of(acme.owner), viewer, "viewer")
    assert roles(acme)["owner@acme.test"] == "owner"


def test_an_api_key_of_an_owner_is_no_owner(acme: Deposit) -> None:
    """A key acts with its own id: it makes nobody an owner."""
    with scope.tenant(acme.id):
        made = create(principal_of(acme.owner), name="x", scopes=["tenant:write"])
        key = Principal("key", made.key.id, acme.id, frozenset({"tenant:write"}))
        with pytest.raises(Denied):
            members.add(key, email="x@example.test", role="owner")


def test_the_last_owner_stays(acme: Deposit) -> None:
    with scope.tenant(acme.id):
        owner = principal_of(acme.owner)
        with pytest.raises(Conflict):
            members.change_role(owner, acme.owner, "admin")
        with pytest.raises(Conflict):
            members.remove(owner, acme.owner)
        second = members.add(owner, email="second@example.test", role="owner").member
        members.remove(owner, acme.owner)
        with pytest.raises(Conflict):
            members.remove(principal_of(second), second)
    assert roles(acme) == {"second@example.test": "owner"}


def test_a_change_raises_the_generation_and_is_in_the_audit_log(acme: Deposit) -> None:
    viewer = person(acme, Role.VIEWER)
    for change in (
        lambda: members.change_role(principal_of(acme.owner), viewer, "developer"),
        lambda: members.remove(principal_of(acme.owner), viewer),
    ):
        before = Generation.objects.get(name="principals").value
        with scope.tenant(acme.id):
            change()
        assert Generation.objects.get(name="principals").value > before
    with scope.tenant(acme.id, write=False):
        said = list(Entry.objects.filter(action__startswith="member.").order_by("id").values_list("action", "detail"))
    assert said == [
        ("member.role", {"before": "viewer", "role": "developer"}),
        ("member.remove", {"role": "developer"}),
    ]


# --- the pages


def test_the_password_of_a_new_account_is_shown_once(acme: Deposit, owner: Browser) -> None:
    answer = owner.post("/admin/members/invite/", {"email": "new@example.test", "role": "developer"})
    assert "no-store" in answer["Cache-Control"]
    found = re.search(r'id="secret">([^<]+)<', answer.content.decode())
    assert found is not None
    assert authenticate(username="new@example.test", password=found[1]) is not None
    assert found[1] not in owner.text("/admin/members/")


def test_a_known_address_is_told_without_a_password(acme: Deposit, owner: Browser) -> None:
    User.objects.create_user("known@example.test", "their own password")
    answer = owner.post("/admin/members/invite/", {"email": "known@example.test", "role": "viewer"})
    html = answer.content.decode()
    assert "has an account already" in html
    assert 'id="secret"' not in html


def test_errors_are_at_their_fields(acme: Deposit, owner: Browser) -> None:
    answer = owner.post("/admin/members/invite/", {"email": "owner@acme.test", "role": "viewer"})
    assert answer.status_code == 422
    assert "is a member already" in answer.content.decode()


def test_a_role_is_changed_and_a_member_let_go(acme: Deposit, owner: Browser) -> None:
    viewer = person(acme, Role.VIEWER)
    owner.post(f"/admin/members/{viewer.pk}/assign/", {"role": "developer"})
    assert roles(acme)["viewer@acme.test"] == "developer"
    assert "is no member any more" in owner.follow(owner.post(f"/admin/members/{viewer.pk}/remove/"))
    assert "viewer@acme.test" not in roles(acme)


def test_who_lets_somebody_go_is_told_of_keys_that_go_on(acme: Deposit, owner: Browser) -> None:
    admin = person(acme, Role.ADMIN)
    with scope.tenant(acme.id):
        create(principal_of(admin), name="left behind", scopes=["predict"])
    said = owner.follow(owner.post(f"/admin/members/{admin.pk}/remove/"))
    assert "API keys that they made still work" in said


def test_the_last_owner_is_told_why_not(acme: Deposit, owner: Browser) -> None:
    said = unescape(owner.follow(owner.post(f"/admin/members/{acme.owner.pk}/remove/")))
    assert "is the last owner" in said
    assert roles(acme) == {"owner@acme.test": "owner"}


def test_an_admin_is_not_offered_the_role_of_owner(acme: Deposit, member: Callable[[Role], Browser]) -> None:
    admin = member(Role.ADMIN)
    assert "owner: and other owners" not in admin.text("/admin/members/invite/")
    answer = admin.post("/admin/members/invite/", {"email": "x@example.test", "role": "owner"})
    assert answer.status_code == 422
    assert "x@example.test" not in roles(acme)

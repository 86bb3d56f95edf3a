"""The native API with a signed-in session: CSRF, the chosen tenant, the role's scopes."""

import pytest
from django.contrib.sessions.models import Session

from strongroom.access import sessions
from strongroom.access.services import memberships, principal_of
from strongroom.errors import Denied, Unauthenticated
from strongroom.tenants.models import Role, Tenant, User
from tests.callers import Api, Deposit, signed_in

TENANT, KEYS = "/api/v1/tenant", "/api/v1/keys"


def test_a_member_reads_by_session_alone(acme: Deposit) -> None:
    answer = signed_in(acme.owner.user).get(TENANT)
    assert (answer.status_code, answer.json()["name"]) == (200, "acme")


def test_a_session_writes_only_with_its_csrf_token(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    body = {"name": "ci", "scopes": ["predict"]}
    for headers in ({}, {"X_CSRFToken": "x" * 32}):
        refused = api.post(KEYS, body, **headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
    token = "k" * 32
    api.client.cookies["csrftoken"] = token
    assert api.post(KEYS, body, X_CSRFToken="l" * 32).status_code == 403
    made = api.post(KEYS, body, X_CSRFToken=token)
    assert made.status_code == 201
    assert made.json()["created_by"]["kind"] == "member"


def test_a_key_needs_no_csrf_token_beside_a_session(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    api.secret = acme.api.secret
    assert api.post(KEYS, {"name": "ci", "scopes": ["predict"]}).status_code == 201


def test_a_bad_key_is_refused_though_a_session_is_there(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    assert api.get(TENANT, Authorization="Bearer sr_no").json()["code"] == "key_malformed"


def test_a_role_gives_its_scopes(acme: Deposit) -> None:
    viewer = signed_in(acme.member(Role.VIEWER, "viewer@acme.test"))
    assert viewer.get(TENANT).status_code == 200
    refused = viewer.get(KEYS)
    assert (refused.status_code, refused.json()["errors"][0]["hint"]) == (403, "keys:write")
    assert signed_in(acme.member(Role.ADMIN, "admin@acme.test")).get(KEYS).status_code == 200


def test_the_tenant_is_the_chosen_one_and_the_header_overrides_it(acme: Deposit, globex: Deposit) -> None:
    person = acme.member(Role.VIEWER, "both@example.test")
    globex.member(Role.VIEWER, "both@example.test")
    api = signed_in(person)
    assert api.get(TENANT).json()["name"] == "acme"
    session = api.client.session
    session["tenant_id"] = str(globex.id)
    session.save()
    first = api.get(TENANT).json()
    assert first["name"] == "globex"
    for name in ("acme", api.get(TENANT, X_Strongroom_Tenant="acme").json()["id"]):
        assert api.get(TENANT, X_Strongroom_Tenant=name).json()["name"] == "acme"


@pytest.mark.parametrize("header", ["globex", "nowhere", ""])
def test_a_tenant_that_one_is_no_member_of_is_refused_alike(acme: Deposit, globex: Deposit, header: str) -> None:
    answer = signed_in(acme.owner.user).get(TENANT, X_Strongroom_Tenant=header)
    assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")
    assert answer.json()["detail"].startswith("you are no member of that tenant")


def test_a_chosen_tenant_that_one_has_left_is_not_used(acme: Deposit, globex: Deposit) -> None:
    api = signed_in(acme.owner.user)
    session = api.client.session
    session["tenant_id"] = str(globex.id)
    session.save()
    assert api.get(TENANT).json()["name"] == "acme"


def test_the_header_means_nothing_with_a_key(acme: Deposit, globex: Deposit) -> None:
    assert acme.api.get(TENANT, X_Strongroom_Tenant="globex").json()["name"] == "acme"


def test_a_person_without_a_tenant_is_refused(db: None) -> None:
    answer = signed_in(User.objects.create_user("alone@example.test", "a long password")).get(TENANT)
    assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")


def test_an_operator_is_no_member_of_anything(acme: Deposit) -> None:
    operator = User.objects.create_user("op@example.test", "a long password", is_operator=True)
    assert signed_in(operator).get(TENANT, X_Strongroom_Tenant="acme").status_code == 403


def test_a_suspended_tenants_members_are_out(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    tenant = Tenant.objects.get(id=acme.id)
    tenant.state = "suspended"
    tenant.save()
    assert api.get(TENANT).status_code == 403


def test_a_person_who_is_not_active_is_nobody(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    User.objects.filter(id=acme.owner.user_id).update(is_active=False)
    assert api.get(TENANT).status_code == 401
    assert memberships(acme.owner.user_id) == []


def test_a_person_is_the_principal_of_each_own_membership(acme: Deposit, globex: Deposit) -> None:
    found = [principal_of(member) for member in memberships(acme.owner.user_id)]
    assert [(one.kind, one.id, one.tenant_id) for one in found] == [("member", acme.owner.id, acme.id)]


def test_the_edge_finds_a_session_in_its_scope(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    cookie = f"sessionid={api.client.cookies['sessionid'].value}; csrftoken={'k' * 32}"
    token = (b"x-csrftoken", b"k" * 32)
    found = sessions.from_asgi(_scope("PUT", (b"cookie", cookie.encode()), token))
    assert found.tenant_id == acme.id
    with pytest.raises(Denied, match="CSRF"):
        sessions.from_asgi(_scope("PUT", (b"cookie", cookie.encode())))
    with pytest.raises(Denied, match="CSRF"):
        sessions.from_asgi(_scope("PUT", (b"cookie", cookie.encode()), token, (b"origin", b"https://evil.example")))
    assert sessions.from_asgi(_scope("GET", (b"cookie", cookie.encode()))).tenant_id == acme.id
    with pytest.raises(Unauthenticated):
        sessions.from_asgi(_scope("GET", (b"cookie", b"sessionid=nothing")))


def _scope(method: str, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {
        "type": "http",
        "method": method,
        "path": "/api/v1/datasets/digits/content",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000"), *headers],
        "client": ("127.0.0.1", 4000),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }


def test_signing_in_does_not_make_every_process_forget(acme: Deposit) -> None:
    from strongroom.access.models import Generation

    before = Generation.objects.get(name="principals").value
    signed_in(acme.owner.user)
    assert Generation.objects.get(name="principals").value == before
    acme.owner.user.is_active = False
    acme.owner.user.save()
    assert Generation.objects.get(name="principals").value == before + 1


def test_nobody_is_nobody(db: None) -> None:
    assert Api().get(TENANT).json()["code"] == "key_missing"


def test_who_reads_the_table_of_sessions_has_nobodys_session(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    cookie = api.client.cookies["sessionid"].value
    rows = list(Session.objects.values_list("session_key", flat=True))
    assert len(rows) == 1
    assert cookie not in rows
    thief = Api()
    thief.client.cookies["sessionid"] = rows[0]
    assert thief.get(TENANT).json()["code"] == "key_missing"
    assert api.get(TENANT).status_code == 200


def test_signing_out_forgets_the_session_and_signing_in_makes_a_new_one(acme: Deposit) -> None:
    api = signed_in(acme.owner.user)
    before = api.client.cookies["sessionid"].value
    api.client.force_login(acme.owner.user)
    assert api.client.cookies["sessionid"].value == before  # the same person goes on
    api.client.logout()
    assert not Session.objects.exists()
    api.client.cookies["sessionid"] = before
    api.client.force_login(acme.owner.user)
    assert api.client.cookies["sessionid"].value != before


@pytest.mark.parametrize("cookie", ["", "short", "x" * 5000, '"\\000\\000aaaaaaaaaa"', "ü" * 40])
def test_a_cookie_that_is_no_session_is_nobody(acme: Deposit, cookie: str) -> None:
    stranger = Api()
    assert stranger.get(TENANT, Cookie=f"sessionid={cookie}").json()["code"] == "key_missing"

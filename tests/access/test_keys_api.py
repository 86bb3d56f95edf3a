"""`/keys`: made, listed, read, revoked, rotated; never more than the maker holds."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from strongroom import ids
from strongroom.access import secrets
from strongroom.access.models import ApiKey, Generation
from strongroom.access.services import get, revoke
from strongroom.audit.models import Entry
from strongroom.tenants import scope
from strongroom.tenants.models import Tenant
from tests.callers import SYSTEM, Api, Deposit, until

pytestmark = pytest.mark.slow

KEYS = "/api/v1/keys"
FIELDS = [
    "id", "name", "prefix", "scopes", "expires_at", "allowed_models", "allowed_networks", "created_at", "created_by",
    "last_used_at", "revoked_at",
]  # fmt: skip


def test_a_new_key_has_the_contracts_body_and_works(acme: Deposit) -> None:
    made = acme.api.post(
        KEYS,
        {
            "name": "ci",
            "scopes": ["tenant:read", "jobs:write"],
            "expires_at": None,
            "allowed_models": [],
            "allowed_networks": [],
        },
    )
    body = made.json()
    assert made.status_code == 201
    assert made["Location"] == f"{KEYS}/{body['id']}"
    assert made["Cache-Control"] == "no-store"
    assert list(body) == [*FIELDS, "secret"]
    assert body["scopes"] == ["jobs:write", "tenant:read"]
    assert body["secret"].startswith(body["prefix"] + "_")
    assert body["created_by"]["kind"] == "key"
    assert ids.parse("key", body["created_by"]["id"]) is not None
    assert Api(body["secret"]).get("/api/v1/tenant").status_code == 200


def test_the_secret_is_nowhere_but_in_the_first_answer(acme: Deposit) -> None:
    body = acme.api.post(KEYS, {"name": "ci", "scopes": ["predict"]}).json()
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret_sha256, name, prefix FROM access_apikey WHERE name = 'ci'")
        stored, *rest = cursor.fetchone()
    assert bytes(stored) == hashlib.sha256(body["secret"].encode()).digest()
    assert body["secret"] not in rest
    for path in (KEYS, f"{KEYS}/{body['id']}"):
        answer = acme.api.get(path)
        assert answer.status_code == 200
        assert body["secret"] not in answer.content.decode()
        assert "secret" not in answer.json()


def test_a_list_is_newest_first_in_pages(acme: Deposit) -> None:
    for number in range(5):
        acme.api.post(KEYS, {"name": f"key {number}", "scopes": ["predict"]})
    names, cursor = [], ""
    for _ in range(4):
        page = acme.api.get(f"{KEYS}?limit=2{cursor}").json()
        names += [key["name"] for key in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert names == ["key 4", "key 3", "key 2", "key 1", "key 0", "first"]
    assert page["next_cursor"] is None


def test_a_revoked_key_ends_and_a_second_time_is_fine(acme: Deposit) -> None:
    narrow = acme.key("tenant:read")
    id = acme.api.get(KEYS).json()["data"][0]["id"]
    assert narrow.get("/api/v1/tenant").status_code == 200
    for _ in range(2):
        assert acme.api.delete(f"{KEYS}/{id}").status_code == 204
    assert until(lambda: narrow.get("/api/v1/tenant").status_code == 401)
    assert acme.api.get(f"{KEYS}/{id}").json()["revoked_at"] is not None


def test_unknown_revoked_expired_and_suspended_look_alike(acme: Deposit, globex: Deposit) -> None:
    revoked, expired = acme.key("tenant:read"), acme.key("tenant:read")
    with scope.tenant(acme.id):
        rows = list(ApiKey.objects.order_by("-id")[:2])
        ApiKey.objects.filter(id=rows[0].id).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        revoke(SYSTEM, rows[1].id)
    tenant = Tenant.objects.get(id=globex.id)
    tenant.state = "suspended"
    tenant.save()
    unknown = Api(secrets.new())
    answers = []
    for caller in (unknown, revoked, expired, globex.api):
        answer = caller.get("/api/v1/tenant", X_Request_Id="req_01k9zq6v8m3x5r2t7w4y0b1c2d")
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == 'Bearer realm="strongroom"'
        answers.append(answer.content)
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert b"key_invalid" in answers[0]


def test_suspending_a_tenant_ends_a_key_that_was_in_use(acme: Deposit) -> None:
    assert acme.api.get("/api/v1/tenant").status_code == 200
    tenant = Tenant.objects.get(id=acme.id)
    tenant.state = "suspended"
    tenant.save()
    assert until(lambda: acme.api.get("/api/v1/tenant").status_code == 401)


def test_a_key_that_expires_while_in_use_ends(acme: Deposit) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    narrow = acme.key("tenant:read", expires_at=soon)
    assert until(lambda: narrow.get("/api/v1/tenant").status_code == 401)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "key_missing"),
        ("Bearer", "key_missing"),
        ("Bearer ", "key_missing"),
        ("Basic YTpi", "key_malformed"),
        ("Bearer sr_abc", "key_malformed"),
        ("sr_4fq2k7m9xd", "key_malformed"),
        ("Bearer sr_4fq2k7m9xd_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk000000", "key_malformed"),
        ("Bearer sr_4fq2k7m9xd é", "key_malformed"),
    ],
)
def test_no_key_and_a_malformed_one_say_so(nobody: Api, db: None, authorization: str | None, code: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = nobody.get("/api/v1/tenant", **headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer["WWW-Authenticate"] == 'Bearer realm="strongroom"'


def test_a_missing_scope_is_named_in_the_hint(acme: Deposit) -> None:
    answer = acme.key("predict").get(KEYS)
    assert answer.status_code == 403
    body = answer.json()
    assert body["code"] == "scope_missing"
    assert body["errors"] == [
        {"path": "", "code": "scope_missing", "message": body["errors"][0]["message"], "hint": "keys:write"}
    ]


def test_another_tenants_key_is_not_there(acme: Deposit, globex: Deposit) -> None:
    id = globex.api.get(KEYS).json()["data"][0]["id"]
    unknown = ids.text("key", ids.new())
    for method, path in [("GET", f"{KEYS}/{id}"), ("DELETE", f"{KEYS}/{id}"), ("POST", f"{KEYS}/{id}/rotate")]:
        theirs, none = acme.api.call(method, path), acme.api.call(method, path.replace(id, unknown))
        assert theirs.status_code == none.status_code == 404
        assert theirs.json()["detail"] == none.json()["detail"]
    assert globex.api.get(KEYS).status_code == 200


def test_every_problem_of_a_body_is_told_at_once(acme: Deposit) -> None:
    answer = acme.api.post(
        KEYS,
        {
            "name": 5,
            "scope": ["predict"],
            "expires_at": "2020-01-01T00:00:00",
            "allowed_models": ["Ä"],
            "allowed_networks": "x",
        },
    )
    assert answer.status_code == 422
    body = answer.json()
    assert {(problem["path"], problem["code"]) for problem in body["errors"]} == {
        ("/name", "invalid"),
        ("/scope", "extra_forbidden"),
        ("/scopes", "required"),
        ("/expires_at", "invalid"),
        ("/allowed_models/0", "invalid"),
        ("/allowed_networks", "not_a_list"),
    }
    assert {p["path"]: p["hint"] for p in body["errors"]}["/scope"] == "did you mean 'scopes'?"
    assert body["detail"].startswith("6 problems; the first: /scope is not a known field, did you mean 'scopes'?")


@pytest.mark.parametrize(
    ("rights", "path"),
    [
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes/0"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at"),
        ({"allowed_networks": ["10.0.0.1/8", "10.0.0.0/8", "nowhere"]}, "/allowed_networks/0"),
        ({"name": "  "}, "/name"),
        ({"name": "x" * 81}, "/name"),
        ({"name": None}, "/name"),
        ({"name": "a\x00b"}, "/name"),
    ],
)
def test_a_wrong_field_is_named(acme: Deposit, rights: dict[str, object], path: str) -> None:
    answer = acme.api.post(KEYS, {"name": "ci", "scopes": ["predict"]} | rights)
    assert answer.status_code == 422, answer.content
    assert answer.json()["errors"][0]["path"] == path


def test_a_key_cannot_hold_more_scopes_than_its_maker(acme: Deposit) -> None:
    maker = acme.key("keys:write", "jobs:write")
    assert maker.post(KEYS, {"name": "less", "scopes": ["jobs:read"]}).status_code == 201
    answer = maker.post(KEYS, {"name": "more", "scopes": ["jobs:read", "predict", "audit:read"]})
    assert answer.status_code == 403
    assert answer.json()["code"] == "scope_missing"
    assert [problem["hint"] for problem in answer.json()["errors"]] == ["audit:read", "predict"]


@pytest.mark.parametrize(
    ("held", "asked", "status"),
    [
        ({"allowed_models": ["a", "b"]}, {"allowed_models": ["a"]}, 201),
        ({"allowed_models": ["a", "b"]}, {"allowed_models": ["a", "c"]}, 403),
        ({"allowed_models": ["a", "b"]}, {}, 403),
        ({"allowed_networks": ["127.0.0.0/8"]}, {"allowed_networks": ["127.0.0.1"]}, 201),
        ({"allowed_networks": ["127.0.0.0/8"]}, {"allowed_networks": ["0.0.0.0/0"]}, 403),
        ({"allowed_networks": ["127.0.0.0/8"]}, {"allowed_networks": ["::/0"]}, 403),
        ({"allowed_networks": ["127.0.0.0/8"]}, {}, 403),
        ({"expires_at": "2999-01-01T00:00:00Z"}, {"expires_at": "2998-01-01T00:00:00Z"}, 201),
        ({"expires_at": "2999-01-01T00:00:00Z"}, {"expires_at": "2999-01-02T00:00:00Z"}, 422),
        ({"expires_at": "2999-01-01T00:00:00Z"}, {}, 422),
    ],
)
def test_a_key_is_bound_as_its_maker_is(
    acme: Deposit, held: dict[str, object], asked: dict[str, object], status: int
) -> None:
    maker = acme.key("keys:write", "predict", **held)
    assert maker.post(KEYS, {"name": "child", "scopes": ["predict"], **asked}).status_code == status


def test_rotation_gives_a_new_secret_and_ends_the_old(acme: Deposit) -> None:
    narrow = acme.key("tenant:read", allowed_models=["digits"])
    id = acme.api.get(KEYS).json()["data"][0]["id"]
    assert narrow.get("/api/v1/tenant").status_code == 200
    rotated = acme.api.post(f"{KEYS}/{id}/rotate", {})
    body = rotated.json()
    assert rotated.status_code == 201
    assert rotated["Location"] == f"{KEYS}/{body['id']}"
    assert body["id"] != id
    assert (body["scopes"], body["allowed_models"]) == (["tenant:read"], ["digits"])
    assert Api(body["secret"]).get("/api/v1/tenant").status_code == 200
    assert until(lambda: narrow.get("/api/v1/tenant").status_code == 401)
    again = acme.api.post(f"{KEYS}/{id}/rotate", {})
    assert (again.status_code, again.json()["code"]) == (422, "invalid_field")


def test_rotation_is_no_way_to_a_stronger_key(acme: Deposit) -> None:
    first = acme.api.get(KEYS).json()["data"][0]["id"]
    weak = acme.key("keys:write")
    answer = weak.post(f"{KEYS}/{first}/rotate", {})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert acme.api.get(f"{KEYS}/{first}").json()["revoked_at"] is None


def test_a_change_raises_the_generation_and_is_audited(acme: Deposit) -> None:
    before = Generation.objects.get(name="principals").value
    body = acme.api.post(KEYS, {"name": "ci", "scopes": ["predict"]}).json()
    rotated = acme.api.post(f"{KEYS}/{body['id']}/rotate", {}).json()
    acme.api.delete(f"{KEYS}/{rotated['id']}", X_Request_Id="req_01k9zq6v8m3x5r2t7w4y0b1c2d")
    assert Generation.objects.get(name="principals").value > before + 2
    with scope.tenant(acme.id):
        entries = list(Entry.objects.order_by("id"))
    assert [entry.action for entry in entries] == [
        "key.created", "key.created", "key.revoked", "key.rotated", "key.revoked",
    ]  # fmt: skip
    last = entries[-1]
    assert (last.actor_kind, last.object_kind, last.from_address) == ("key", "key", "127.0.0.1")
    assert last.request_id == "req_01k9zq6v8m3x5r2t7w4y0b1c2d"
    assert all(body["secret"] not in str(entry.detail) for entry in entries)


def test_the_last_use_is_seen(acme: Deposit) -> None:
    narrow = acme.key("tenant:read")
    id = acme.api.get(KEYS).json()["data"][0]["id"]
    assert acme.api.get(f"{KEYS}/{id}").json()["last_used_at"] is None
    narrow.get("/api/v1/tenant")
    assert acme.api.get(f"{KEYS}/{id}").json()["last_used_at"] is not None


def test_a_key_bound_to_networks_works_from_there_only(acme: Deposit) -> None:
    assert acme.key("tenant:read", allowed_networks=["127.0.0.0/8"]).get("/api/v1/tenant").status_code == 200
    answer = acme.key("tenant:read", allowed_networks=["10.0.0.0/8"]).get("/api/v1/tenant")
    assert (answer.status_code, answer.json()["code"]) == (403, "network_not_allowed")


def test_a_failed_call_leaves_nothing_behind(acme: Deposit) -> None:
    with scope.tenant(acme.id):
        count = ApiKey.objects.count(), Entry.objects.count()
    acme.api.post(KEYS, {"name": "ci", "scopes": ["predict"], "allowed_networks": ["nowhere"]})
    with scope.tenant(acme.id):
        assert (ApiKey.objects.count(), Entry.objects.count()) == count
        assert get(ApiKey.objects.get().id).revoked_at is None

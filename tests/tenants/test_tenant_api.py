"""`/tenant`: name, limits and what is in use."""

from strongroom import ids
from strongroom.tenants.models import Tenant
from strongroom.tenants.services import DEFAULT_LIMITS
from tests.callers import Deposit


def test_the_tenant_is_told_with_its_limits_and_use(acme: Deposit) -> None:
    body = acme.api.get("/api/v1/tenant").json()
    assert list(body) == ["id", "name", "display_name", "state", "limits", "usage", "created_at"]
    assert (body["id"], body["name"], body["state"]) == (ids.text("ten", acme.id), "acme", "active")
    assert body["limits"] == DEFAULT_LIMITS
    assert body["usage"] == {"running_jobs": 0, "storage_bytes": 0}
    assert body["created_at"].endswith("Z")


def test_own_limits_replace_the_defaults(acme: Deposit) -> None:
    tenant = Tenant.objects.get(id=acme.id)
    tenant.limits = {"requests_per_second": 5, "something_else": 1}
    tenant.save()
    assert acme.api.get("/api/v1/tenant").json()["limits"] == DEFAULT_LIMITS | {"requests_per_second": 5}


def test_it_needs_tenant_read(acme: Deposit) -> None:
    assert acme.key("predict").get("/api/v1/tenant").json()["code"] == "scope_missing"
    assert acme.key("tenant:write").get("/api/v1/tenant").status_code == 200


def test_storage_in_use_is_what_lies_there(acme: Deposit, globex: Deposit) -> None:
    from strongroom.tenants import scope
    from strongroom.vault import services as vault

    with scope.tenant(acme.id):
        vault.seal_bytes(acme.id, "output", b"x" * 1000)
    used = acme.api.get("/api/v1/tenant").json()["usage"]["storage_bytes"]
    assert used >= 1000
    assert globex.api.get("/api/v1/tenant").json()["usage"]["storage_bytes"] == 0

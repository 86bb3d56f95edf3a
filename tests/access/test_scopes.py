"""What includes what, and what each role may."""

import pytest

from strongroom.access.scopes import ALL, ROLES, expand
from strongroom.tenants.models import Role


def test_write_includes_read() -> None:
    assert expand(["jobs:write"]) == {"jobs:write", "jobs:read"}


@pytest.mark.parametrize("scope", ["predict", "models:download", "keys:write", "audit:read"])
def test_what_has_no_read_includes_nothing(scope: str) -> None:
    assert expand([scope]) == {scope}


def test_a_name_that_is_no_scope_gives_nothing() -> None:
    assert expand(["root", "jobs:admin"]) == set()


def test_there_are_the_contracts_scopes() -> None:
    pairs = {
        f"{room}:{verb}"
        for room in ("datasets", "jobs", "models", "deployments", "tenant")
        for verb in ("read", "write")
    }
    assert pairs | {"predict", "models:download", "keys:write", "usage:read", "audit:read"} == ALL


def test_a_viewer_reads_all_but_the_audit() -> None:
    assert ROLES[Role.VIEWER] == {scope for scope in ALL if scope.endswith(":read")} - {"audit:read"}


def test_a_developer_adds_predict_and_the_writes_of_the_work() -> None:
    added = {"predict", "datasets:write", "jobs:write", "models:write", "deployments:write"}
    assert ROLES[Role.DEVELOPER] - ROLES[Role.VIEWER] == added


def test_an_admin_adds_keys_the_tenant_downloads_and_the_audit() -> None:
    added = {"keys:write", "tenant:write", "models:download", "audit:read"}
    assert ROLES[Role.ADMIN] - ROLES[Role.DEVELOPER] == added


def test_an_owner_may_everything() -> None:
    assert ROLES[Role.OWNER] == ALL

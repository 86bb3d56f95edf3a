"""A ring and a store of each test's own, and tenants with keys."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from strongroom.tenants import scope
from strongroom.tenants.services import create_tenant


@pytest.fixture(autouse=True)
def own_home(home: Path) -> None:
    """tests/conftest.py makes it."""


@pytest.fixture
def objects(home: Path) -> Path:
    return home / "objects"


@pytest.fixture
def ring(home: Path) -> Path:
    return home / "keys"


@pytest.fixture
def tenant_id(db: None) -> UUID:
    return create_tenant("acme", "owner@acme.test").tenant.id


@pytest.fixture
def other_tenant_id(db: None) -> UUID:
    return create_tenant("globex", "owner@globex.test").tenant.id


@pytest.fixture
def inside(tenant_id: UUID) -> Iterator[UUID]:
    """The test runs in the tenant's scope."""
    with scope.tenant(tenant_id):
        yield tenant_id

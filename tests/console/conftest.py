"""Two tenants with something of every kind in each, and people of every role who are signed in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from strongroom.tenants.models import Role, User
from tests.callers import Deposit
from tests.console.browsing import Browser
from tests.console.rows import Filled, filled


@pytest.fixture(autouse=True)
def own_home(home: Path) -> None:
    """tests/conftest.py makes it."""


@pytest.fixture
def at_acme(acme: Deposit) -> Filled:
    return filled(acme)


@pytest.fixture
def at_globex(globex: Deposit) -> Filled:
    return filled(globex)


@pytest.fixture
def owner(acme: Deposit) -> Browser:
    """The owner of acme."""
    return Browser(acme.owner.user)


@pytest.fixture
def member(acme: Deposit) -> Callable[[Role], Browser]:
    """Somebody with a role at acme."""
    return lambda role: Browser(acme.member(role, f"{role.value}@acme.test"))


@pytest.fixture
def operator(db: None) -> Browser:
    """Who runs the platform and belongs to no tenant."""
    return Browser(User.objects.create_user("op@example.test", "a long password", is_operator=True))

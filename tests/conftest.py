"""Fixtures that every room may use. The servers are already up (tests/servers.py); processes start on request."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from tests.callers import Api, Deposit, deposit
from tests.depth import PROFILE
from tests.nodes import Node
from tests.spreading import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler

hypothesis_settings.register_profile("ours", PROFILE)
hypothesis_settings.load_profile("ours")

SLOW_FILE = re.compile(r"^pytestmark = \[?pytest\.mark\.slow", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make fast` does not even import what is slow as a whole: torch and a browser's driver take seconds."""
    quick = str(config.option.markexpr).startswith("not slow") and collection_path.suffix == ".py"
    return True if quick and SLOW_FILE.search(collection_path.read_text()) else None


@pytest.fixture
def node() -> Iterator[Node]:
    """One node in the session's mode, nothing started yet: `node.start()`."""
    with Node() as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, settings: Any) -> Path:
    """A ring and a store of the test's own, for what runs in this process."""
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, home=str(tmp_path), store_url="", kms="")
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # guards nothing; 200 ms saved each
    return tmp_path


@pytest.fixture
def acme(db: None, home: Path) -> Deposit:
    return deposit("acme")


@pytest.fixture
def globex(db: None, home: Path) -> Deposit:
    return deposit("globex")


@pytest.fixture
def nobody(home: Path) -> Api:
    """A caller without a key."""
    return Api()

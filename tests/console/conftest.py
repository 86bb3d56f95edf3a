"""Two tenants of each test's own, with a ring and a store of their own."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.callers import Api, Deposit, deposit


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: Any) -> Path:
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, home=str(tmp_path), store_url="", kms="")
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # guards nothing; 200 ms saved each
    return tmp_path


@pytest.fixture
def acme(db: None) -> Deposit:
    return deposit("acme")


@pytest.fixture
def globex(db: None) -> Deposit:
    return deposit("globex")


@pytest.fixture
def nobody() -> Api:
    """A caller without a key."""
    return Api()

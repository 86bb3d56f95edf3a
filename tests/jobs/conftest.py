"""Two tenants of each test's own, with a ring and a store of their own, and a data set that is ready."""

from pathlib import Path

import pytest

from strongroom.datasets.models import DatasetVersion
from tests.callers import Deposit
from tests.jobs.work import ready_dataset


@pytest.fixture(autouse=True)
def own_home(home: Path) -> None:
    """tests/conftest.py makes it."""


@pytest.fixture
def digits(acme: Deposit) -> DatasetVersion:
    """`digits@1` of acme: 60 images of three classes, marked ready without a job."""
    return ready_dataset(acme)

"""Every test of this room has a ring and a store of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(home: Path) -> None:
    """tests/conftest.py makes it."""

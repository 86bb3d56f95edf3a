"""Fixtures that every room may use. The servers are already up (tests/servers.py); processes start on request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nodes import Node


@pytest.fixture
def node() -> Iterator[Node]:
    """One node in the session's mode, nothing started yet: `node.start()`."""
    with Node() as made:
        yield made

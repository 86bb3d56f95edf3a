"""One node for all tests of the front door: web and agent up, two tenants, a served model each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.edge.house import House
from tests.nodes import Node


@pytest.fixture(scope="package")
def house() -> Iterator[House]:
    with Node() as node:
        found = House(node)
        found.tenant("alpha")
        found.tenant("beta")
        node.start("web", "agent")
        found.serve("alpha")
        yield found

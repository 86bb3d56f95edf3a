"""One node for all faults: a data set, a model trained without any fault, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests import servers
from tests.faults.stand import Stand, long_training
from tests.journeys import until
from tests.nodes import Node


@pytest.fixture(scope="package")
def made() -> Iterator[tuple[Stand, dict[str, Any]]]:
    """The node, and the model version of the unbroken run."""
    production = "STRONGROOM_BROKER_URL" in servers.session_variables()
    broker = servers.Redis(Path(mkdtemp(prefix="redis-", dir=servers.session_folder()))) if production else None
    if broker is not None:
        broker.start()
    with Node(broker=broker) as node:
        stand = Stand(node, broker)
        stand.tenant("alpha")
        node.start("up")
        until(lambda: node.status("/api/v1/health/ready") == 200, 90, 0.1)
        stand.deposit()
        done = stand.trained(long_training())
        limits = {"deadline_ms": 10_000}
        stand.deployed("weather", "weather", done["result"]["version"], limits=limits)
        yield stand, stand.get("/api/v1/models/weather/versions/1").json
    if broker is not None:
        broker.kill()


@pytest.fixture
def stand(made: tuple[Stand, dict[str, Any]]) -> Iterator[Stand]:
    """With all its processes, before and after."""
    made[0].whole()
    yield made[0]
    made[0].whole()


@pytest.fixture
def unbroken(made: tuple[Stand, dict[str, Any]]) -> dict[str, Any]:
    """The model version that the same spec gives without a fault."""
    return made[1]

"""One node in each mode with what the walk through the API needs: data sets, models, deployments, two tenants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.edge.house import CLASSES, network
from tests.journeys import Journey, training
from tests.nodes import Node

ON_BOTH = ("test_conventions", "test_keys", "test_jobs", "test_predictions")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Embedded mode walks what its other database and broker can change; in a session without servers, everything."""
    if "house" in metafunc.fixturenames:
        production = "STRONGROOM_BROKER_URL" in servers.session_variables()
        both = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH
        modes = ["production", *(["embedded"] if both else [])] if production else ["embedded"]
        metafunc.parametrize("house", modes, indirect=True, scope="package")


@pytest.fixture(scope="package")
def house(request: pytest.FixtureRequest) -> Iterator[Journey]:
    """Tenant alpha with the data set `weather`, the models `weather` (trained) and `mlp` (brought along), both deployed
    under their names; tenant beta with nothing."""
    with Node(request.param) as node:
        house = Journey(node)
        house.tenant("alpha")
        house.tenant("beta")
        node.start()
        house.deposit()
        job = house.submit(training(epochs=2, register={"model": "weather", "deploy": "weather"}))
        uploaded = house.put("/api/v1/models/mlp/content?format=onnx", network()).json
        brought = {"kind": "import", "name": "mlp", "artefact": uploaded["artefact"], "model": "mlp"}
        house.succeeded(house.submit({**brought, "task": "classification", "classes": CLASSES}))
        house.deployed("mlp", "mlp")
        house.succeeded(job)
        house.ready("alpha", "weather")
        yield house

"""One node in each mode with what the walk through the API needs: data sets, models, deployments, two tenants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.edge.house import CLASSES, network
from tests.journeys import Journey, training
from tests.nodes import Node

MODES = [
    pytest.param("production", marks=pytest.mark.xdist_group("rest-production")),
    pytest.param("embedded", marks=pytest.mark.xdist_group("rest-embedded")),
]


@pytest.fixture(scope="package", params=MODES)
def house(request: pytest.FixtureRequest) -> Iterator[Journey]:
    """Tenant alpha with the data set `weather`, the models `weather` (trained) and `mlp` (brought along), both deployed
    under their names; tenant beta with nothing."""
    if request.param == "production" and "STRONGROOM_BROKER_URL" not in servers.session_variables():
        pytest.skip("this session has no servers")
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

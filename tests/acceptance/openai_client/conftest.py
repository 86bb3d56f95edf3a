"""One node with SmolLM2 and MiniLM, brought by the front door, and OpenAI's own unmodified client against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from openai import OpenAI

from strongroom.operations.management.commands.language import minilm, smollm2
from tests.journeys import Journey
from tests.nodes import Node


def bring(house: Journey, name: str, format: str, content: bytes, **spec: Any) -> None:
    """Deposited, imported, deployed under its name."""
    uploaded = house.put(f"/api/v1/models/{name}/content?format={format}", content, timeout=120)
    assert uploaded.status == 201, uploaded.body
    document = {"kind": "import", "name": name, "artefact": uploaded.json["artefact"], "model": name}
    house.succeeded(house.submit(document | spec), 150)
    made = house.post("/api/v1/deployments", {"name": name, "versions": [{"model": name, "version": 1}]})
    assert made.status == 202, made.body
    house.ready("alpha", name)


@contextmanager
def deployed(
    house: Journey, name: str, model: str = "smollm2", policy: dict[str, Any] | None = None, **limits: Any
) -> Iterator[str]:
    """A model with limits of its own, for a test: the other deployment's are heard of a while after a change."""
    document = {"name": name, "versions": [{"model": model, "version": 1}], "limits": limits}
    made = house.post("/api/v1/deployments", document | ({"output_policy": policy} if policy else {}))
    assert made.status == 202, made.body
    house.ready("alpha", name)
    try:
        yield name
    finally:
        assert house.delete(f"/api/v1/deployments/{name}").status == 202


@pytest.fixture(scope="package")
def house() -> Iterator[Journey]:
    """Tenant alpha with the deployments `smollm2` and `minilm`; tenant beta with nothing."""
    with Node() as node:
        found = Journey(node)
        found.tenant("alpha")
        found.tenant("beta")
        node.start()
        bring(found, "smollm2", "gguf", smollm2(), task="generation", weights="q4_0")
        bring(found, "minilm", "safetensors-zip", minilm(), task="embedding")
        yield found


@pytest.fixture(scope="package")
def client(house: Journey) -> Iterator[OpenAI]:
    with OpenAI(api_key=house.keys["alpha"], base_url=f"{house.node.url}/v1", timeout=120, max_retries=0) as made:
        yield made

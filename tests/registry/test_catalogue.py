"""Public models: published by their owner, seen by every tenant, adopted without their weights, withdrawn again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from strongroom.deployments import rows
from strongroom.errors import NotFound
from strongroom.registry import services
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.vault import services as vault
from tests.callers import Deposit

pytestmark = pytest.mark.slow

INTERFACE = {
    "kind": "language",
    "context_length": 8192,
    "vocabulary": 49152,
    "chat": True,
    "tools": False,
    "weights_sha256": "0" * 64,
}
PUBLIC = {"public": True}


def language(owner: Deposit, name: str = "llm", format: str = "gguf") -> ModelVersion:
    with scope.tenant(owner.id):
        artefact = vault.seal_bytes(owner.id, "model", b"weights")
        result = {"signature": INTERFACE, "metrics": {}, "parameters": 7, "evaluation": None, "card": {"type": "Q4_0"}}
        return services.register(
            name=name, task="generation", artefact=artefact, result=result, lineage={}, format=format
        )


def wanted(owner: Deposit, name: str) -> rows.Wanted:
    with scope.tenant(owner.id):
        version = services.resolve(name)
    return rows.Wanted(owner.id, version.id, name, "cpu", version.id, 8)


def test_a_public_model_is_listed_for_every_tenant_and_adopted(acme: Deposit, globex: Deposit) -> None:
    language(acme)
    assert globex.api.get("/api/v1/catalogue").json()["data"] == []
    changed = acme.api.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC)
    assert changed.status_code == 200, changed.content
    (entry,) = globex.api.get("/api/v1/catalogue").json()["data"]
    assert (entry["name"], entry["task"], entry["card"]) == (f"{acme.name}/llm@1", "generation", {"type": "Q4_0"})
    made = globex.api.post("/api/v1/models/base/adopt", {"public": entry["name"]})
    assert made.status_code == 201, made.content
    assert made["Location"] == "/api/v1/models/base/versions/1"
    body = made.json()
    assert (body["public"], body["format"], body["state"]) == (entry["name"], "gguf", "ready")
    assert body["lineage"] == {"parent": entry["name"]}
    again = globex.api.post("/api/v1/models/base/adopt", {"public": entry["name"]})
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")


def test_the_agent_opens_the_owners_artefact_and_says_that_it_may_be_shared(acme: Deposit, globex: Deposit) -> None:
    language(acme)
    acme.api.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC)
    globex.api.post("/api/v1/models/base/adopt", {"public": f"{acme.name}/llm@1"})
    order = rows.order(wanted(globex, "base"))
    assert (order.tenant, order.is_public, order.size_bytes) == (acme.id, True, len(b"weights"))
    order.forget()
    own = rows.order(wanted(acme, "llm"))
    assert (own.tenant, own.is_public) == (acme.id, False)
    own.forget()


def test_a_withdrawn_model_is_not_listed_adopted_or_loaded_any_more(acme: Deposit, globex: Deposit) -> None:
    language(acme)
    acme.api.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC)
    globex.api.post("/api/v1/models/base/adopt", {"public": f"{acme.name}/llm@1"})
    acme.api.call("PATCH", "/api/v1/models/llm/versions/1", {"public": False})
    assert globex.api.get("/api/v1/catalogue").json()["data"] == []
    assert globex.api.post("/api/v1/models/other/adopt", {"public": f"{acme.name}/llm@1"}).status_code == 404
    with pytest.raises(NotFound):
        rows.order(wanted(globex, "base"))


def test_a_model_that_is_published_again_is_there_for_its_adopters_again(acme: Deposit, globex: Deposit) -> None:
    language(acme)
    for public in (True, False, True):
        acme.api.call("PATCH", "/api/v1/models/llm/versions/1", {"public": public})
        if public:
            globex.api.post("/api/v1/models/base/adopt", {"public": f"{acme.name}/llm@1"})
    assert len(globex.api.get("/api/v1/catalogue").json()["data"]) == 1
    rows.order(wanted(globex, "base")).forget()


def test_agents_look_again_once_a_model_is_published_again(acme: Deposit) -> None:
    language(acme)
    for public in (True, False):
        acme.api.call("PATCH", "/api/v1/models/llm/versions/1", {"public": public})
    before = rows.generation()
    acme.api.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC)
    assert rows.generation() > before


@pytest.mark.django_db(transaction=True)
def test_publishing_many_times_at_once_is_publishing_once(acme: Deposit, globex: Deposit) -> None:
    language(acme)

    def publish(_: int) -> int:
        try:
            return acme.api.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC).status_code
        finally:
            connections.close_all()  # of this thread

    with ThreadPoolExecutor(6) as callers:
        assert set(callers.map(publish, range(6))) == {200}
    assert len(globex.api.get("/api/v1/catalogue").json()["data"]) == 1


def test_a_deleted_model_is_no_longer_public(acme: Deposit, globex: Deposit) -> None:
    language(acme)
    acme.api.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC)
    assert acme.api.call("DELETE", "/api/v1/models/llm/versions/1").status_code == 204
    assert globex.api.get("/api/v1/catalogue").json()["data"] == []


def test_only_the_owner_publishes_and_only_language_models(acme: Deposit, globex: Deposit) -> None:
    language(acme)
    assert globex.api.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC).status_code == 404
    reader = acme.key("models:read")
    assert reader.call("PATCH", "/api/v1/models/llm/versions/1", PUBLIC).status_code == 403
    language(acme, "arrays", format="onnx")
    refused = acme.api.call("PATCH", "/api/v1/models/arrays/versions/1", PUBLIC)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "/public")


def adapter(owner: Deposit, name: str, base: ModelVersion) -> None:
    with scope.tenant(owner.id):
        artefact = vault.seal_bytes(owner.id, "model", b"adapter")
        signature = INTERFACE | {"adapter": True, "base_sha256": "0" * 64}
        result = {"signature": signature, "metrics": {}, "parameters": 7, "evaluation": None}
        services.register(
            name=name, task="generation", artefact=artefact, result=result, lineage={}, format="lora", base=base
        )


def test_a_model_goes_with_the_adapters_of_its_own(acme: Deposit) -> None:
    adapter(acme, "llm", language(acme))
    assert acme.api.call("DELETE", "/api/v1/models/llm").status_code == 204
    assert acme.api.get("/api/v1/models/llm").status_code == 404


def test_the_base_of_an_adapter_stays_while_the_adapter_does(acme: Deposit) -> None:
    base = language(acme)
    adapter(acme, "tuned", base)
    refused = acme.api.call("DELETE", "/api/v1/models/llm/versions/1")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    order = rows.order(wanted(acme, "tuned"))
    assert order.base is not None
    assert order.base.version == base.id
    order.forget()
    assert acme.api.call("DELETE", "/api/v1/models/tuned/versions/1").status_code == 204
    assert acme.api.call("DELETE", "/api/v1/models/llm/versions/1").status_code == 204

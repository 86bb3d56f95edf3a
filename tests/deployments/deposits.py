"""Tenants with deployed models in a node's database, made through the rooms' doors; for tests of the agent alone."""

from __future__ import annotations

import json
from typing import Any

from tests.inference import graphs
from tests.nodes import Node

_GIVEN = """
import json
from pathlib import Path
from strongroom.tenants import scope
from strongroom.tenants.models import Tenant
from tests.callers import SYSTEM
from strongroom.tenants.services import create_tenant
from strongroom.deployments import services as deployments
from strongroom.registry import services as registry
from strongroom.vault import services as vault
given = json.loads(Path(GIVEN).read_text())
"""
_DEPLOY = """
made = []
for one in given:
    tenant = Tenant.objects.filter(name=one["tenant"]).first()
    tenant = tenant or create_tenant(one["tenant"], one["tenant"] + "@example.test").tenant
    with scope.tenant(tenant.id):
        artefact = vault.seal_bytes(tenant.id, "model", bytes.fromhex(one["model"]))
        result = {"signature": one["signature"]}
        version = registry.register(name=one["name"], task=one["task"], artefact=artefact, result=result, lineage={})
        deployments.deploy_version(SYSTEM, one["name"], version)
    made.append({"tenant": str(tenant.id), "version": str(version.id), "object": artefact.object_name})
print(json.dumps(made))
"""
_STOP = """
with scope.tenant(Tenant.objects.get(name=given["tenant"]).id):
    deployments.stop(SYSTEM, given["name"])
print("null")
"""
_STATE = """
import time
from strongroom.deployments.models import Deployment, Replica
shown, ends = {}, time.monotonic() + 30
while shown.get("state") != given["state"] and time.monotonic() < ends:
    time.sleep(0.05)
    with scope.tenant(Tenant.objects.get(name=given["tenant"]).id, write=False):
        row = Deployment.objects.filter(name=given["name"]).latest("created_at")
        replica = Replica.objects.filter(deployment=row).first()
        shown = {"state": row.state, "error": row.error_code, "replica": replica and replica.state}
        shown["memory"] = replica and replica.memory_bytes
print(json.dumps(shown))
"""

Graph = tuple[bytes, dict[str, Any]]


def deploy(node: Node, *what: tuple[str, str], graph: Graph | None = None) -> list[dict[str, str]]:
    """For each (tenant, name) a model of that name, deployed under it, the next version where it is there already.

    What was made of each: tenant, version and object.
    """
    model, signature = graph or graphs.mlp()
    facts = {"model": model.hex(), "signature": signature, "task": signature.get("task", "classification")}
    return [dict(made) for made in _run(node, _DEPLOY, [{"tenant": t, "name": name} | facts for t, name in what])]


def stop(node: Node, tenant: str, name: str) -> None:
    _run(node, _STOP, {"tenant": tenant, "name": name})


def state(node: Node, tenant: str, name: str, awaited: str) -> dict[str, Any]:
    """The newest deployment of that name once it is as awaited, or after 30 s: state, error, replica, memory."""
    return dict(_run(node, _STATE, {"tenant": tenant, "name": name, "state": awaited}))


def _run(node: Node, program: str, given: Any) -> Any:
    path = node.folder / "given.json"
    path.write_text(json.dumps(given))
    return node.shell(f"GIVEN = {str(path)!r}\n{_GIVEN}{program}")

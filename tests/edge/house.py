"""A node with tenants and a served model, and plain HTTP calls to it: what the tests of the front door stand on.

The model is a small network made here (64 numbers → 10 probabilities), registered and deployed through the rooms'
doors, so that no job is needed before the first prediction.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.nodes import Node

CLASSES = [str(number) for number in range(10)]
SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
    "classes": CLASSES,
    "task": "classification",
}
PREDICT = "/api/v1/deployments/mlp/predict"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        return str(self.json["code"])

    @property
    def problems(self) -> list[tuple[str, str]]:
        return [(problem["path"], problem["code"]) for problem in self.json["errors"]]


class House:
    """One node and the keys of its tenants."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.keys: dict[str, str] = {}

    def tenant(self, name: str) -> str:
        """A new tenant; its key with every scope."""
        done = self.node.manage("createtenant", name, "--owner", f"owner@{name}.test")
        self.keys[name] = json.loads(done.stdout.splitlines()[-1])["api_key"]
        return self.keys[name]

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "alpha",
        timeout: float = 60,
        **headers: str,
    ) -> Answer:
        """`key` is a tenant's name or a secret, None for no key; other bodies than bytes go as JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {self.keys.get(key, key)}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=timeout)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return self.call("POST", path, body, **options)

    def put(self, path: str, body: bytes, **options: Any) -> Answer:
        return self.call("PUT", path, body, **options)

    def key(self, *scopes: str, tenant: str = "alpha", **rights: Any) -> str:
        """A narrower key of a tenant."""
        made = self.post("/api/v1/keys", {"name": "narrow", "scopes": list(scopes), **rights}, key=tenant)
        assert made.status == 201, made.body
        return str(made.json["secret"])

    def shell(self, tenant: str, program: str) -> Any:
        """Python in the tenant's scope inside the control plane; `answer` is what comes back."""
        return self.node.shell(_IN_SCOPE.format(tenant=tenant, program=program.strip().replace("\n", "\n    ")))

    def serve(self, tenant: str, name: str = "mlp", *, wait: bool = True, seed: int = 0, **document: Any) -> None:
        """A registered model, deployed under the same name; `document` as in POST /deployments."""
        path = self.node.folder / f"{name}-{seed}.onnx"
        path.write_bytes(network(seed))
        self.shell(tenant, _SERVE.format(path=str(path), signature=SIGNATURE, name=name, document=document))
        if wait:
            self.ready(tenant, name)

    def ready(self, tenant: str, name: str = "mlp") -> None:
        seen = self.get(f"/api/v1/deployments/{name}", key=tenant, Prefer="wait=30")
        assert seen.json["state"] == "ready", (seen.body, self.node.log("agent"))


_IN_SCOPE = """
import json
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Tenant
SYSTEM = Actor("system")
answer = None
tenant_id = Tenant.objects.get(name={tenant!r}).id
with scope.tenant(tenant_id):
    {program}
print(json.dumps(answer))
"""

_SERVE = """
from strongroom.deployments import services as deployments
from strongroom.registry import services as registry
from strongroom.vault import services as vault
artefact = vault.seal_bytes(tenant_id, "model", open({path!r}, "rb").read())
result = {{"signature": {signature!r}, "metrics": {{}}, "parameters": 9610, "evaluation": None}}
version = registry.register(name={name!r}, task="classification", artefact=artefact, result=result, lineage={{}})
versions = [{{"model": {name!r}, "version": version.number, "weight": 100, "mode": "live"}}]
if deployments.live().filter(name={name!r}).exists():
    deployments.switch(SYSTEM, {name!r}, {{"versions": versions, **{document!r}}})
else:
    deployments.deploy(SYSTEM, {{"name": {name!r}, "versions": versions, **{document!r}}})
answer = version.number
"""


def network(seed: int = 0) -> bytes:
    """64 → 128 → 10 with softmax, as ONNX; the weights from `seed`."""
    random = np.random.default_rng(seed)
    shapes = {"w1": (64, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
    weights = {name: random.normal(size=shape).astype("f4") * 0.1 for name, shape in shapes.items()}
    steps = [("MatMul", "x w1", "a"), ("Add", "a b1", "b"), ("Relu", "b", "c"), ("MatMul", "c w2", "d")]
    steps += [("Add", "d b2", "e"), ("Softmax", "e", "probabilities")]
    graph = helper.make_graph(
        [helper.make_node(kind, given.split(), [out]) for kind, given, out in steps],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def expected(inputs: Any, seed: int = 0) -> np.ndarray[Any, Any]:
    """What the network says, computed by ONNX Runtime here."""
    import onnxruntime

    session = onnxruntime.InferenceSession(network(seed), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.asarray(inputs, "f4")})[0])


def stored_files(node: Node) -> list[Path]:
    """Every file in the object store, temporary ones included."""
    return [path for path in (node.home / "objects").rglob("*") if path.is_file()]

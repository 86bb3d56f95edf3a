"""Predictions a second and their latency through everything (key, limits, metering, sandboxed cell), by wrk.

The baseline is a bare ONNX Runtime loop over the same graph in one thread of this process, measured right before: it
decodes nothing, checks nothing and talks to nobody. The client runs on the same cores as the server.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from strongroom.operations.client import Client
from tests.bench.report import Figure
from tests.nodes import Node

SECONDS = 6
_LATENCY = re.compile(r"^\s+50%\s+([\d.]+)(us|ms|s)", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def mlp() -> tuple[bytes, dict[str, Any]]:
    """MLP 64-128-10 with a softmax, and one row for it."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shapes = {"w1": (64, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["features", "w1"], ["h1"]),
        helper.make_node("Add", ["h1", "b1"], ["h2"]),
        helper.make_node("Relu", ["h2"], ["h3"]),
        helper.make_node("MatMul", ["h3", "w2"], ["h4"]),
        helper.make_node("Add", ["h4", "b2"], ["h5"]),
        helper.make_node("Softmax", ["h5"], ["probabilities"], axis=-1),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 64])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString(), {"features": random.normal(size=(1, 64)).round(4).tolist()}


def lenet() -> tuple[bytes, dict[str, Any]]:
    """The founding network as our own exporter writes it, untrained, and one image for it."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        nn.Softmax(dim=-1),
    ).eval()
    example = torch.zeros(2, 3, 32, 32)
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=20,
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    image = np.random.default_rng(0).integers(0, 256, size=(1, 3, 32, 32)).astype(np.float32)
    return program.model_proto.SerializeToString(), {"image": image.tolist()}


def bare(model: bytes, inputs: dict[str, Any]) -> float:
    """Calls a second of the same graph at batch 1 in one thread, without anything around it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    arrays = {name: np.array(value, dtype=np.float32) for name, value in inputs.items()}
    calls, ends = 0, time.perf_counter() + 2
    while time.perf_counter() < ends:
        for _ in range(100):
            session.run(None, arrays)
        calls += 100
    return calls / 2


def deposit(api: Client, name: str, model: bytes) -> None:
    """Brings the graph by the front door: upload, import, deploy."""
    found = api.call(
        "PUT", f"/api/v1/models/{name}/content?format=onnx", model, content_type="application/octet-stream"
    )
    spec = {"kind": "import", "name": name, "artefact": found["artefact"], "model": name, "task": "classification"}
    job = api.call("POST", "/api/v1/jobs", spec, wait=60)
    assert job["state"] == "succeeded", job["error"]
    document = {"name": name, "versions": [{"model": name, "version": job["result"]["version"]}]}
    deployment = api.call("POST", "/api/v1/deployments", document, wait=60)
    assert deployment["state"] == "ready", deployment["error"]


def load(url: str, key: str, body: bytes, connections: int, folder: Path) -> tuple[float, float]:
    """Requests a second and the median latency in ms; RuntimeError when anything but 200 came back."""
    (folder / "body.json").write_bytes(body)
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Authorization"] = "Bearer {key}"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        f'local file = io.open("{folder}/body.json", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, latency = _RATE.search(text), _LATENCY.search(text)
    if _FAILED.search(text) or rate is None or latency is None:
        raise RuntimeError(text)
    return float(rate[1]), float(latency[1]) * _MS[latency[2]]


def measure(node: Node, api: Client, key: str) -> Iterator[Figure]:
    import orjson

    if shutil.which("wrk") is None:
        raise SystemExit("the serving figures need wrk: apt install wrk")
    makers: dict[str, Callable[[], tuple[bytes, dict[str, Any]]]] = {"mlp-64-128-10": mlp, "lenet": lenet}
    for name, make in makers.items():
        model, inputs = make()
        alone = bare(model, inputs)
        deposit(api, name, model)
        url, body = f"{node.url}/api/v1/deployments/{name}/predict", orjson.dumps({"inputs": inputs})
        load(url, key, body, 1, node.folder)  # warm
        for connections in (1, 32):
            rate, latency = load(url, key, body, connections, node.folder)
            yield Figure.against(f"predict {name}, {connections} connections", rate, "requests/s", alone)
            yield Figure.against(f"predict {name}, {connections} connections, p50", latency, "ms", 1e3 / alone)


def submit_to_running(api: Client, dataset: str, times: int = 15) -> Figure:
    """From the POST of a job to the moment that its row says running: the median."""
    waits = []
    spec = {
        "name": "wake",
        "task": "classification",
        "dataset": {"name": dataset},
        "model": {"kind": "catalogue", "name": "linear"},
        "train": {"epochs": 1},
    }
    for _ in range(times):
        began = time.perf_counter()
        job = api.call("POST", "/api/v1/jobs", spec)
        while job["state"] == "queued":
            time.sleep(0.005)
            job = api.call("GET", f"/api/v1/jobs/{job['id']}")
        waits.append(time.perf_counter() - began)
        api.call("GET", f"/api/v1/jobs/{job['id']}", wait=60)
    return Figure("submit → running, p50", statistics.median(waits) * 1e3, "ms")

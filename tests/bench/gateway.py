"""Chat completions a second through our front door and through LiteLLM's proxy, before engines that answer at once.

The same request by wrk on the same cores, one after the other. Ours is one web process a core, which looks up the key,
holds its limits and meters into the database; LiteLLM's, with one worker (its default) and with as many as ours, has a
master key and no database.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests import servers
from tests.bench import peers, serving
from tests.bench.language import DEPLOYMENT
from tests.bench.report import Figure
from tests.nodes import Node

CONNECTIONS = 32
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


def measure(node: Node, key: str) -> Iterator[Figure]:
    """The agent has ended then: the stand-in's cell is the only one."""
    rate, workers = _ours(node, key), len(os.sched_getaffinity(0))
    for count in (1, workers):
        name = f"chat before an instant engine, LiteLLM's proxy with {count} worker{'s'[: count > 1]} beside"
        yield Figure.against(name, rate, "requests/s", litellm(node.folder, count))


def _body(model: str) -> bytes:
    return json.dumps({"model": model, "messages": MESSAGES, "max_tokens": 16, "temperature": 0}).encode()


def _ours(node: Node, key: str) -> float:
    """The deployment's cell is taken from what the agent tells, and the stand-in put in its place."""
    runtime = Path((node.home / "runtime").read_text())
    served = json.loads((runtime / "cells.json").read_text())
    node.stop("agent")
    folder = node.folder / "instant"
    folder.mkdir()
    log = node.logs / "instant-cell.log"
    command = [sys.executable, "-m", "tests.bench.instant", "cell", str(folder / "cell.sock")]
    with peers.running(command, log):
        _wait_for(log)
        for cell in served["cells"]:
            cell["socket"] = "cell.sock"
        (folder / "cells.json").write_text(json.dumps(served))
        (node.home / "runtime").write_text(str(folder))
        url = f"{node.url}/v1/chat/completions"
        time.sleep(1)  # until every web process has looked
        serving.load(url, key, _body(DEPLOYMENT), 1, node.folder)  # warm
        return serving.load(url, key, _body(DEPLOYMENT), CONNECTIONS, node.folder)[0]


def _wait_for(log: Path) -> None:
    ends = time.monotonic() + 20
    while b"listens" not in log.read_bytes():
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.05)  # between two looks, until the deadline above


def litellm(folder: Path, workers: int) -> float:
    """Requests a second through its proxy, before an instant backend of OpenAI's kind."""
    backend, port = servers.free_port(), servers.free_port()
    config = {
        "model_list": [
            {
                "model_name": "instant",
                "litellm_params": {
                    "model": "openai/instant",
                    "api_base": f"http://127.0.0.1:{backend}/v1",
                    "api_key": "none",
                },
            }
        ],
        "general_settings": {"master_key": "sk-bench"},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    command = [peers.BIN / "litellm", "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
    }
    log, instant = folder / "litellm.log", folder / "instant-backend.log"
    with (
        peers.running([sys.executable, "-m", "tests.bench.instant", "backend", str(backend)], instant),
        peers.running([*command, "--num_workers", str(workers)], log, environment=environment) as proxy,
    ):
        _wait_for(instant)
        peers.until_it_answers(f"http://127.0.0.1:{port}/health/liveliness", proxy, log)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        serving.load(url, "sk-bench", _body("instant"), 1, folder)  # warm
        return serving.load(url, "sk-bench", _body("instant"), CONNECTIONS, folder)[0]

"""A language model's way into a cell, and its memory there: sealed against plain, three tenants' shared against own.

Loading is measured in a real sandboxed cell by the cell's own clock (decryption, mapping, a context, the first step)
against llama.cpp with the plain file, whose pages the disk's cache has. Memory is what the kernel says of each cell
when it has answered: Pss, which shares out what several map, and private pages, which it has alone.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strongroom.operations.client import Client
from tests.bench.language import CELLS, DEPLOYMENT
from tests.bench.report import Figure
from tests.inference.cells import Zygote
from tests.inference.language import words
from tests.nodes import Node

TIMES = 7
THREADS = 2
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "What is the capital?"}], "max_tokens": 8}


def loading(file: Path) -> Iterator[Figure]:
    """`file` is plain; the cell gets the same bytes, sealed."""
    content = file.read_bytes()
    sealed, plain = [], []
    with tempfile.TemporaryDirectory() as folder, Zygote() as zygote:  # of sockets: no weights lie in it
        for number in range(TIMES):
            cell = zygote.fork(Path(folder) / f"{number}.sock", memory_bytes=4 << 30)
            batching = {"max_batch": 32, "context_tokens": CELLS}
            sealed.append(float(words.load(cell, content, batching=batching).fields()["seconds"]))
            cell.agent.close()
            assert zygote.packet()["type"] == "ended"
            plain.append(_plain(file))
    yield Figure.against(
        "load sealed into a cell, llama.cpp with the plain file beside",
        statistics.median(sealed) * 1e3,
        "ms",
        statistics.median(plain) * 1e3,
    )


def _plain(file: Path) -> float:
    command = [sys.executable, "-m", "tests.bench.cells", str(file)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def plain_main(path: str) -> None:
    """llama.cpp as it comes: the file mapped, a context, one step."""
    import ctypes

    from llama_cpp import llama_cpp as ll

    ll.llama_log_set(_silent := ll.llama_log_callback(lambda *_: None), ctypes.c_void_p(0))
    ll.llama_backend_init()
    began = time.perf_counter()
    model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
    parameters = ll.llama_context_default_params()
    parameters.n_ctx, parameters.n_seq_max, parameters.kv_unified = CELLS, 32, True
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = THREADS
    context = ll.llama_init_from_model(model, parameters)
    batch = ll.llama_batch_get_one((ctypes.c_int32 * 1)(1), 1)
    assert ll.llama_decode(context, batch) == 0
    print(time.perf_counter() - began)


def memory(node: Node, api: Client) -> Iterator[Figure]:
    """A tenant's cell with a copy of its own, then three others' that share one; 1,024 tokens of context each."""
    api.call("PATCH", f"/api/v1/models/{DEPLOYMENT}/versions/1", {"public": True})
    (alone,) = _guests(node, "alone", 1, share=False)
    shared = _guests(node, "guest", 3, share=True)
    for place, what in enumerate(("Pss", "private pages")):
        mean = statistics.mean(found[place] for found in shared)
        yield Figure.against(f"a cell, {what}: three on one base, its own beside", mean, "MiB", alone[place])


def _guests(node: Node, name: str, count: int, *, share: bool) -> list[tuple[float, float]]:
    """What each one's cell takes once all have answered."""
    before = set(_cells(node))
    for number in range(count):
        owner = f"{name}-{number}@bench.localhost"
        made = json.loads(node.manage("createtenant", f"{name}-{number}", "--owner", owner).stdout)
        guest = Client(node.url, made["api_key"])
        guest.call("POST", "/api/v1/models/base/adopt", {"public": f"bench/{DEPLOYMENT}@1"})
        document = {"name": "chat", "versions": [{"model": "base", "version": 1}], "share": share}
        deployment = guest.call("POST", "/api/v1/deployments", document | {"context_tokens": 1024}, wait=60)
        assert deployment["state"] == "ready", deployment["error"]
        guest.call("POST", "/v1/chat/completions", QUESTION | {"model": "chat"})
    return [_mib(pid) for tenant, pid in _cells(node).items() if tenant not in before]


def _cells(node: Node) -> dict[str, int]:
    """The pid of each tenant's cell."""
    folder = Path((node.home / "runtime").read_text().strip())
    return {cell["tenant"]: cell["pid"] for cell in json.loads((folder / "cells.json").read_text())["cells"]}


def _mib(pid: int) -> tuple[float, float]:
    """Pss and private pages."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return found["Pss"], found["Private_Clean"] + found["Private_Dirty"]


if __name__ == "__main__":
    plain_main(sys.argv[1])

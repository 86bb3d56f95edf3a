"""`make bench`: every figure in one run, one table, and bench.json. `python -m tests.bench serving vault`: a part."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from strongroom.operations.client import Client
from tests import servers
from tests.bench import cells, embeddings, finetune, first_run, gateway, keys, language, report, serving, vault
from tests.bench.report import Figure
from tests.nodes import Node

PARTS = ("serving", "jobs", "keys", "language", "embeddings", "finetune", "gateway", "vault", "run")
ON_A_NODE = frozenset({"serving", "jobs", "keys", "language", "embeddings", "gateway"})


def main(parts: list[str]) -> None:
    load = os.getloadavg()[0]
    figures: list[Figure] = []
    for figure in _figures(parts or list(PARTS)):
        figures.append(figure)
        print(report.table([figure]).splitlines()[1], flush=True)
    cores = len(os.sched_getaffinity(0))
    told = f"{cores} cores, as many web processes; load before {load:.1f}; client on the same cores"
    print(f"\n{report.table(figures)}\n\n{told}")
    report.write(figures, Path("bench.json"))


def _figures(parts: list[str]) -> Iterator[Figure]:
    if "run" in parts:
        yield from first_run.measure()
    if "vault" in parts:
        yield from vault.measure()
    if "finetune" in parts:
        yield from finetune.measure()
    if ON_A_NODE & set(parts):
        yield from _on_a_node(parts)


def _on_a_node(parts: list[str]) -> Iterator[Figure]:
    cores = len(os.sched_getaffinity(0))
    with Node(settings={"STRONGROOM_WEB_PROCESSES": str(cores)}) as node:  # what an operator of such a machine sets
        made = json.loads(node.manage("createtenant", "bench", "--owner", "bench@bench.localhost").stdout)
        node.start()
        api = Client(node.url, made["api_key"])
        if "serving" in parts:
            yield from serving.measure(node, api, made["api_key"])
        if "jobs" in parts:
            path = "/api/v1/datasets/rows/content?format=csv&target=label"
            rows = "a,b,label\n" + "".join(f"{i},{i % 7},{'xy'[i % 2]}\n" for i in range(200))
            api.call("PUT", path, rows.encode(), wait=60, content_type="text/csv")
            yield serving.submit_to_running(api, "rows")
        if "keys" in parts:
            yield from keys.measure(node, made["api_key"])
        if "embeddings" in parts:
            yield from embeddings.measure(node, api)
        if {"language", "gateway"} & set(parts):
            language.deposit(api)
        if "language" in parts:
            file = node.folder / "smollm2-q4_0.gguf"
            language.plain_q4_0(file)
            yield from language.measure(node, made["api_key"], file)
            yield from cells.loading(file)
            yield from cells.memory(node, api)
        if "gateway" in parts:
            yield from gateway.measure(node, made["api_key"])


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")
    os.environ.update(servers.start_session())
    os.environ["STRONGROOM_HOME"] = str(servers.session_folder() / "home-bench")
    main(sys.argv[1:])

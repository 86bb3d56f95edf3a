"""`make bench`: every figure in one run, one table, and bench.json. `python -m tests.bench serving vault`: a part."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from strongroom.operations.client import Client
from tests import servers
from tests.bench import first_run, keys, language, report, serving, vault
from tests.bench.report import Figure
from tests.nodes import Node

PARTS = ("serving", "jobs", "keys", "language", "vault", "run")


def main(parts: list[str]) -> None:
    figures: list[Figure] = []
    for figure in _figures(parts or list(PARTS)):
        figures.append(figure)
        print(report.table([figure]).splitlines()[1], flush=True)
    cores = len(os.sched_getaffinity(0))
    told = f"{cores} cores, as many web processes; load before {os.getloadavg()[2]:.1f}; client on the same cores"
    print(f"\n{report.table(figures)}\n\n{told}")
    report.write(figures, Path("bench.json"))


def _figures(parts: list[str]) -> Iterator[Figure]:
    if "run" in parts:
        yield from first_run.measure()
    if "vault" in parts:
        yield from vault.measure()
    if {"serving", "jobs", "keys", "language"} & set(parts):
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
        if "language" in parts:
            yield from language.measure(node, api, made["api_key"])
        if "keys" in parts:
            yield from keys.measure(node, made["api_key"])


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")
    os.environ.update(servers.start_session())
    os.environ["STRONGROOM_HOME"] = str(servers.session_folder() / "home-bench")
    main(sys.argv[1:])

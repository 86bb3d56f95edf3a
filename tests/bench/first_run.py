"""`make run` in a fresh clone from a warm package cache: seconds until demo.json says that all is ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests import servers
from tests.bench.report import Figure
from tests.nodes import ROOT

LIMIT_SECONDS = 600


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sr-bench-") as folder:
        return _measure(Path(folder))


def _measure(folder: Path) -> list[Figure]:
    clone, home = folder / "clone", folder / "first-home"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STRONGROOM_", "DJANGO_"))}
    environment = inherited | {"STRONGROOM_HOME": str(home), "STRONGROOM_PORT": str(servers.free_port())}
    began = time.monotonic()
    with open(folder / "run.log", "wb") as log:
        process = subprocess.Popen(["make", "run"], cwd=clone, env=environment, stdout=log, stderr=log, process_group=0)
    try:
        while not (home / "demo.json").exists():
            if process.poll() is not None or time.monotonic() - began > LIMIT_SECONDS:
                raise RuntimeError((folder / "run.log").read_text()[-2000:])
            time.sleep(0.1)
        seconds = time.monotonic() - began
        found = json.loads((home / "demo.json").read_text())
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    accuracy = _accuracy(folder)
    return [
        Figure(f"make run, until {found['deployment']} answers", seconds, "s"),
        Figure("make run, accuracy on the test part", accuracy, "share"),
    ]


def _accuracy(folder: Path) -> float:
    text = (folder / "run.log").read_text()
    return float(text.split(" on the test part (")[0].rsplit("accuracy ", 1)[1])

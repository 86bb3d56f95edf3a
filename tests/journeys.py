"""What a tenant does from end to end, over plain HTTP against a whole node: deposit, train, follow, deploy, predict.

Beside it a look into the node's tables from outside (`rows`), for what the API does not show. Builds on the calls of
tests/edge/house.py and on tests/nodes.py; knows small tables of numbers only.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from strongroom import ids
from tests.edge.house import Answer, House

CLASSES = ("calm", "breezy", "stormy")
COLUMNS = ("wind", "wave", "cloud", "rain")
TERMINAL = ("succeeded", "failed", "cancelled")


def table(rows: int = 400, seed: int = 0, classes: Sequence[str] = CLASSES, columns: Sequence[str] = COLUMNS) -> bytes:
    """A CSV of numbers in which the class can be learned, `label` last."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, len(classes), rows)
    numbers = random.normal(size=(rows, len(columns))) + kinds[:, None]
    lines = [",".join([*columns, "label"])]
    lines += [
        ",".join([*(f"{number:.4f}" for number in row), classes[kind]])
        for row, kind in zip(numbers, kinds, strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def row(columns: Sequence[str] = COLUMNS, value: float = 0.5) -> dict[str, float]:
    """One item as a prediction takes it."""
    return dict.fromkeys(columns, value)


def training(name: str = "weather", *, dataset: str = "weather", epochs: int = 3, **sections: Any) -> dict[str, Any]:
    """A small MLP; `train=` and other sections are laid over it."""
    train = {"epochs": epochs, "batch_size": 32, "checkpoint_seconds": 0.5, **sections.pop("train", {})}
    return {
        "kind": "train",
        "name": name,
        "task": "classification",
        "dataset": {"name": dataset},
        "model": {"kind": "catalogue", "name": "mlp"},
        "train": train,
        **sections,
    }


def until(holds: Callable[[], Any], seconds: float = 30, pause: float = 0.02) -> Any:
    """What `holds` answers once it is true; a failure after `seconds`."""
    ends = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < ends, f"not within {seconds:g} s: {getattr(holds, '__qualname__', holds)}"
        time.sleep(pause)
    return found


def promised(seconds: float) -> float:
    """A time that the platform promises, longer by as much as this machine has more to do than it has cores."""
    return seconds * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


class Journey(House):
    """One node's tenants and what they do. Answers are decoded bodies; what was refused fails the test."""

    # --- the way of a model

    def deposit(
        self, name: str = "weather", data: bytes | None = None, query: str = "format=csv", **options: Any
    ) -> Any:
        """A data set's version, ready."""
        path = f"/api/v1/datasets/{name}/content?{query}"
        answer = self.put(path, table() if data is None else data, Prefer="wait=50", **options)
        assert answer.status in (200, 201), (answer.status, answer.body, self.logs())
        assert answer.json["state"] == "ready", (answer.json["error"], self.logs())
        return answer.json

    def submit(self, document: dict[str, Any], **options: Any) -> str:
        """The job's id."""
        answer = self.post("/api/v1/jobs", document, **options)
        assert answer.status == 202, (answer.status, answer.body)
        assert answer.headers["location"] == f"/api/v1/jobs/{answer.json['id']}"
        return str(answer.json["id"])

    def delete(self, path: str, **options: Any) -> Answer:
        return self.call("DELETE", path, **options)

    def job(self, id: str, **options: Any) -> Any:
        answer = self.get(f"/api/v1/jobs/{id}", **options)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json

    def ended(self, id: str, seconds: float = 90, **options: Any) -> Any:
        """The job once it has ended, however."""
        ends = time.monotonic() + seconds
        while (job := self.job(id, Prefer="wait=10", **options))["state"] not in TERMINAL:
            assert time.monotonic() < ends, (job, self.logs())
        return job

    def succeeded(self, id: str, seconds: float = 90, **options: Any) -> Any:
        job = self.ended(id, seconds, **options)
        assert job["state"] == "succeeded", (job["state"], job["error"], self.logs())
        return job

    def trained(self, document: dict[str, Any], **options: Any) -> Any:
        """The job, succeeded."""
        return self.succeeded(self.submit(document, **options), **options)

    def deployed(self, name: str, model: str, version: int = 1, *, key: str = "alpha", **document: Any) -> Any:
        """The deployment, ready."""
        versions = [{"model": model, "version": version, "weight": 100, "mode": "live"}]
        body = {"name": name, "versions": versions, **document}
        answer = self.post("/api/v1/deployments", body, key=key, Prefer="wait=40")
        assert answer.status == 201, (answer.status, answer.body, self.logs())
        assert answer.json["state"] == "ready", (answer.body, self.logs())
        return answer.json

    def predict(self, name: str, rows: Sequence[dict[str, Any]] | None = None, **options: Any) -> Answer:
        return self.post(f"/api/v1/deployments/{name}/predict", {"rows": list(rows or [row()])}, **options)

    def pages(self, path: str, limit: int = 200, **options: Any) -> list[Any]:
        """Everything in a list, page by page."""
        found, cursor = [], ""
        while True:
            page = self.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}", **options).json
            assert page["has_more"] is (page["next_cursor"] is not None)
            found += page["data"]
            if not page["has_more"]:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    # --- looking from outside

    def events(self, id: str, last: int | None = None, **options: Any) -> list[tuple[int, str, dict[str, Any]]]:
        """(id, kind, data) of a job's stream to its end."""
        headers = {} if last is None else {"Last_Event_ID": str(last)}
        answer = self.get(f"/api/v1/jobs/{id}/events", **headers, **options)
        assert answer.status == 200, (answer.status, answer.body)
        assert answer.headers["content-type"] == "text/event-stream"
        return stream(answer.body)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the node's database, read past the platform; `%s` for values."""
        if self.node.mode == "production":
            with psycopg.connect(self.node.environment["STRONGROOM_SYSTEM_DATABASE_URL"]) as connection:
                return connection.execute(query, values).fetchall()  # type: ignore[call-overload,no-any-return]
        path = self.node.home / "strongroom.sqlite3"
        known = [value.hex if isinstance(value, UUID) else value for value in values]
        lite = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return lite.execute(query.replace("%s", "?"), known).fetchall()
        finally:
            lite.close()

    def attempts(self, id: str) -> list[tuple[int, str | None, int | None]]:
        """(number, outcome, step of the newest checkpoint) of a job's attempts."""
        query = "SELECT number, outcome, checkpoint_step FROM jobs_attempt WHERE job_id = %s ORDER BY number"
        return [(number, outcome, step) for number, outcome, step in self.rows(query, ids.parse("job", id))]

    def logs(self) -> str:
        """The ends of what the node's processes wrote."""
        return "\n".join(
            f"--- {path.name}\n{self.node.log(path.stem)}" for path in sorted(self.node.logs.glob("*.log"))
        )


def command_line(pid: int) -> str:
    """Empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def lives(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def stream(body: bytes) -> list[tuple[int, str, dict[str, Any]]]:
    """(id, event, data) of the whole events in a text/event-stream; comments left out."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def lines(body: bytes) -> list[Any]:
    """JSON Lines."""
    return [json.loads(line) for line in body.splitlines()]

"""Workers and schedulers as processes of their own, with a real broker and without one."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import psycopg
import pytest

from tests.callers import until
from tests.nodes import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

SUBMIT = """
import json
from tests.callers import deposit
from tests.jobs.work import ready_dataset, submitted, training
acme = deposit("acme")
ready_dataset(acme)
submitted(acme, training(epochs={epochs}))
print(json.dumps(None))
"""
FIELDS = "state, attempt, worker, error_code"


def submit(node: Node, epochs: int = 2) -> None:
    node.shell(SUBMIT.format(epochs=epochs))


def rows(node: Node, query: str) -> list[Any]:
    """What the database says, whatever process is up."""
    if node.mode == "embedded":
        with contextlib.closing(sqlite3.connect(node.home / "strongroom.sqlite3", timeout=20)) as connection:
            return list(connection.execute(query))
    with psycopg.connect(node.environment["STRONGROOM_OWNER_DATABASE_URL"]) as connection:
        return connection.execute(query).fetchall()


def job(node: Node) -> dict[str, Any]:
    return dict(zip(FIELDS.split(", "), rows(node, f"SELECT {FIELDS} FROM jobs_job")[0], strict=True))  # noqa: S608  # names of ours


def outcomes(node: Node) -> list[str | None]:
    return [outcome for (outcome,) in rows(node, "SELECT outcome FROM jobs_attempt ORDER BY number")]


def has_a_checkpoint(node: Node) -> bool:
    return bool(rows(node, "SELECT 1 FROM jobs_attempt WHERE checkpoint_step IS NOT NULL"))


def ended(node: Node) -> bool:
    return job(node)["state"] in ("succeeded", "failed")


def test_a_worker_takes_what_is_submitted_and_ends_when_it_is_told(node: Node) -> None:
    node.start("worker", "scheduler")
    submit(node)
    assert until(lambda: ended(node), 60), node.log("worker")
    found = job(node)
    assert found["state"] == "succeeded", found
    assert found["worker"].endswith(("-cpu-1", "-cpu-2"))
    assert [node.stop(name) for name in ("worker", "scheduler")] == [0, 0]
    assert "Traceback" not in node.log("worker") + node.log("scheduler")


def test_a_stopped_worker_hands_its_job_to_the_next(node: Node) -> None:
    node.start("worker")
    submit(node, epochs=100_000)
    assert until(lambda: has_a_checkpoint(node), 60), node.log("worker")
    assert node.stop("worker") == 0
    assert (job(node)["state"], outcomes(node)) == ("queued", ["drained"])
    node.start("worker")
    assert until(lambda: job(node)["state"] == "running", 60)
    assert job(node)["attempt"] == 2


def test_the_job_of_a_killed_worker_goes_on_at_another(node: Node) -> None:
    node.start("worker", "scheduler")
    submit(node, epochs=100_000)
    assert until(lambda: has_a_checkpoint(node), 60), node.log("worker")
    processes = node.descendants()
    node.kill("worker")
    node.start("worker:2")
    assert until(lambda: job(node)["attempt"] == 2, 60), node.log("scheduler") + node.log("worker:2")
    assert outcomes(node) == ["lost", None]
    assert not set(processes) & set(node.descendants()), "a process outlived its worker"


def test_without_a_broker_work_is_taken_all_the_same(node: Node) -> None:
    node.environment["STRONGROOM_BROKER_URL"] = "redis://127.0.0.1:1/0"
    node.start("worker", "scheduler")
    submit(node)
    assert until(lambda: ended(node), 60), node.log("worker")
    assert job(node)["state"] == "succeeded"
    assert node.stop("worker") == 0


def test_a_worker_refuses_root_keys_that_are_another_database_s(node: Node) -> None:
    submit(node)
    for file in (node.home / "keys").rglob("*"):
        if file.is_file():
            file.unlink()
    done = node.manage("worker", check=False)
    assert done.returncode != 0
    assert "root keys" in done.stderr
    assert "Traceback" not in done.stderr

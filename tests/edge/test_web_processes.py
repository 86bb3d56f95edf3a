"""`manage.py web`: several processes on one port, a lost one is started again, a stop answers what is in flight."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.edge.house import Answer, House
from tests.nodes import Node

pytestmark = pytest.mark.slow


LATER = """
from strongroom import ids
from strongroom.jobs.models import Job
answer = ids.text("job", Job.objects.create(kind="train", name="later", spec_sha256="").id)
"""


def servers(node: Node) -> list[int]:
    """The pids of the server processes below `web`."""
    children = Path(f"/proc/{node.pid('web')}/task/{node.pid('web')}/children").read_text().split()
    return [int(pid) for pid in children]


def wait_for(met: object, seconds: float = 40) -> None:
    ends = time.monotonic() + seconds
    while not met():  # type: ignore[operator]  # a function without arguments
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_two_processes_share_the_port_and_a_killed_one_comes_back() -> None:
    with Node() as node:
        node.start("web", web_processes="2")
        wait_for(lambda: len(servers(node)) == 2)
        first = servers(node)
        os.kill(first[0], signal.SIGKILL)
        wait_for(lambda: len(servers(node)) == 2 and servers(node) != first)
        node.wait_until_ready()
        everyone = servers(node)
        assert node.stop("web") == 0
        assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]
        assert node.status("/api/v1/health/live") is None


def test_server_processes_do_not_outlive_the_one_that_started_them() -> None:
    with Node() as node:
        node.start("web", web_processes="2")
        wait_for(lambda: len(servers(node)) == 2)
        everyone = servers(node)
        node.kill("web")
        wait_for(lambda: not [pid for pid in everyone if _runs(pid)])


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_stop_answers_who_waits_and_ends_streams_at_once() -> None:
    with Node() as node:
        house = House(node)
        house.tenant("alpha")
        node.start("web")
        job = house.shell("alpha", LATER)
        paths = {"wait": f"/api/v1/jobs/{job}", "stream": f"/api/v1/jobs/{job}/events"}
        found: dict[str, Answer] = {}

        def ask(name: str) -> None:
            found[name] = house.get(paths[name], Prefer="wait=60")

        callers = [threading.Thread(target=ask, args=[name]) for name in paths]
        for caller in callers:
            caller.start()
        time.sleep(1)
        assert node.stop("web", seconds=15) == 0
        for caller in callers:
            caller.join()
        assert {name: answer.status for name, answer in found.items()} == {"wait": 200, "stream": 200}
        assert found["wait"].json["state"] == "queued"


def test_a_port_in_use_is_said_with_the_remedy(house: House) -> None:
    done = house.node.manage("web", check=False)
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1:{house.node.port}" in done.stderr
    assert "STRONGROOM_PORT" in done.stderr


def test_other_root_keys_than_the_databases_are_refused_at_the_start(house: House) -> None:
    with Node() as node:
        House(node).tenant("alpha")
        shutil.rmtree(node.home / "keys")
        shutil.copytree(house.node.home / "keys", node.home / "keys")
        done = node.manage("web", check=False)
        assert done.returncode != 0
        assert "root keys" in done.stderr
        assert "STRONGROOM_KMS" in done.stderr

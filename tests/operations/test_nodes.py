"""The real processes as a supervisor or a container starts them: they come up, stop on request and leave nothing."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.nodes import Node

pytestmark = pytest.mark.slow


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: object, seconds: float = 20) -> bool:
    import time

    assert callable(condition)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("mode", ["production", "embedded"])
def test_all_processes_come_up_and_stop_on_request(mode: str) -> None:
    with Node(mode) as node:  # type: ignore[arg-type]  # both of them
        node.start()
        assert node.status("/api/v1/health/ready") == 200
        assert all(process.poll() is None for process in node.processes.values())
        children = node.descendants()
        assert [node.stop(name) for name in ("worker", "agent", "scheduler")] == [0, 0, 0]
        assert node.stop("web") in (0, -signal.SIGTERM)
        assert not any(alive(pid) for pid in children)


@pytest.mark.parametrize("name", ["agent", "web"])
def test_what_a_killed_process_started_is_gone_with_it(name: str) -> None:
    with Node() as node:
        node.start(name, web_processes="2")
        assert wait_until(lambda: len(node.descendants()) >= (1 if name == "agent" else 2))
        children = node.descendants()
        node.kill(name)
        assert wait_until(lambda: not any(alive(pid) for pid in children))


def test_up_keeps_everything_and_leaves_nothing_when_killed(node: Node) -> None:
    node.start("up")
    assert wait_until(lambda: node.status("/api/v1/health/ready") == 200, 60)
    assert wait_until(lambda: len(node.descendants()) >= 5)
    children = node.descendants()
    os.kill(node.pid("up"), signal.SIGKILL)
    assert wait_until(lambda: not any(alive(pid) for pid in children))


def test_up_ends_all_with_ctrl_c(node: Node) -> None:
    node.start("up")
    assert wait_until(lambda: node.status("/api/v1/health/ready") == 200, 60)
    children = node.descendants()
    os.kill(node.pid("up"), signal.SIGINT)
    assert node.processes["up"].wait(30) == 0
    assert not any(alive(pid) for pid in children)
    assert node.status("/api/v1/health/live") is None


def test_a_taken_port_and_a_second_up_are_said_at_once(node: Node) -> None:
    with socket.create_server(("127.0.0.1", node.port)):
        refused = node.manage("up", check=False)
    assert (refused.returncode, "set STRONGROOM_PORT" in refused.stderr) == (1, True), refused.stderr
    node.start("up")
    assert wait_until(lambda: node.status("/api/v1/health/ready") == 200, 60)
    refused = node.manage("up", check=False)
    assert (refused.returncode, "everything runs already" in refused.stderr) == (1, True), refused.stderr
    assert node.status("/api/v1/health/ready") == 200


def test_what_a_process_writes_is_its_users_alone_and_it_leaves_no_image_of_its_memory() -> None:
    with Node("embedded") as node:
        found = node.shell(
            "import json, os, pathlib, resource, sys\n"
            "pathlib.Path('written').touch()\n"
            "mode = oct(os.stat('written').st_mode & 0o777)\n"
            "print(json.dumps([mode, resource.getrlimit(resource.RLIMIT_CORE)[0] <= 1]))"
        )
        assert found == ["0o600", True]

"""A kernel that lacks one of the walls: `require` starts nothing that would run untrusted work, and says what lacks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.edge.house import House
from tests.journeys import until
from tests.nodes import MANAGE, Node

pytestmark = pytest.mark.slow

WITHOUT_LANDLOCK = """
import errno, os, pyseccomp, sys
rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
rules.load()
os.execv(sys.argv[1], sys.argv[1:])
"""


def without_landlock(node: Node, name: str, sandbox: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_LANDLOCK, *MANAGE, name],
        env=node.environment | {"STRONGROOM_SANDBOX": sandbox},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    node.processes[name] = process
    return process


@pytest.mark.parametrize("name", ["worker", "agent"])
def test_what_runs_untrusted_work_refuses_to_start(node: Node, name: str) -> None:
    said, _ = without_landlock(node, name, "require").communicate(timeout=60)
    assert node.processes[name].returncode == 1
    assert "landlock" in said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize(("sandbox", "status"), [("require", 503), ("auto", 200)])
def test_ready_says_what_the_kernel_lacks(node: Node, sandbox: str, status: int) -> None:
    without_landlock(node, "web", sandbox)
    until(lambda: node.status("/api/v1/health/live") == 200, 60, 0.1)
    answer = House(node).get("/api/v1/health/ready", key=None)
    assert (answer.status, answer.json["checks"]["sandbox"]) == (status, "lacks landlock; has seccomp, namespaces")

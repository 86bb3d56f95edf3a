"""The supervisor with real processes: what dies comes back, what must stop stops, nothing is left over."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Each program appends "name event" to the journal, so that a test sees what happened in which order.
SUPERVISE = """
import asyncio, json, logging, sys
from strongroom.operations.supervisor import Program, Supervisor
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
asked = json.loads(sys.argv[1])
programs = [Program(name, [sys.executable, "-c", code, name], **options) for name, code, options in asked]
sys.exit(asyncio.run(Supervisor(programs).run()))
"""
TELLS = """
import os, signal, sys, time
def tell(event):
    with open(os.environ["JOURNAL"], "a") as journal:
        journal.write(f"{sys.argv[1]} {event} {os.getpid()}\\n")
"""
STEADY = (
    TELLS
    + """
def stop(*_):
    tell("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
tell("up")
while True:
    signal.pause()
"""
)
DEAF = (
    TELLS
    + """
signal.signal(signal.SIGTERM, lambda *_: tell("heard"))
tell("up")
while True:
    signal.pause()
"""
)
BROKEN = TELLS + "tell('up'); sys.exit(3)"
BRIEF = TELLS + "tell('up')"
PARENT = (
    TELLS
    + """
if os.fork() == 0:
    tell("grandchild")
else:
    tell("up")
while True:
    signal.pause()
"""
)


class Supervised:
    def __init__(self, folder: Path, *programs: tuple[str, str, dict[str, object]]) -> None:
        self.journal = folder / "journal"
        self.journal.touch()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, json.dumps(programs)],
            env={**os.environ, "JOURNAL": str(self.journal)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.journal.read_text().splitlines()]

    def pids(self, name: str, event: str = "up") -> list[int]:
        return [int(pid) for who, what, pid in self.lines() if (who, what) == (name, event)]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(2000):
            if condition():
                return
            select.select([], [], [], 0.01)
        raise AssertionError(f"did not happen: {self.lines()}")

    def ask(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def start(*programs: tuple[str, str, dict[str, object]]) -> Supervised:
        made.append(Supervised(tmp_path, *programs))
        return made[0]

    yield start
    for supervised in made:
        supervised.process.kill()
        supervised.process.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_dies_is_started_again(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("web", STEADY, {}), ("worker", STEADY, {}))
    whole.wait_for(lambda: bool(whole.pids("web")) and bool(whole.pids("worker")))
    (first,) = whole.pids("worker")
    os.kill(first, signal.SIGKILL)
    whole.wait_for(lambda: len(whole.pids("worker")) == 2)
    assert len(whole.pids("web")) == 1
    whole.ask(signal.SIGTERM)
    assert whole.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_all_stop_in_reverse_order_and_none_is_left(number: int, supervise: Callable[..., Supervised]) -> None:
    names = ["web", "agent", "worker"]
    whole = supervise(*((name, STEADY, {}) for name in names))
    whole.wait_for(lambda: all(whole.pids(name) for name in names))
    whole.ask(number)
    assert whole.end() == 0
    assert [who for who, what, _ in whole.lines() if what == "stopped"] == ["worker", "agent", "web"]
    assert not any(alive(pid) for name in names for pid in whole.pids(name))


def test_one_that_keeps_dying_ends_the_whole_and_the_others_stop_cleanly(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("web", STEADY, {}), ("broken", BROKEN, {}))
    assert whole.end() == 1
    assert len(whole.pids("broken")) == 5
    assert len(whole.pids("web", "stopped")) == 1


def test_a_program_that_does_not_exist_ends_the_whole(tmp_path: Path) -> None:
    program = SUPERVISE.replace("[sys.executable, ", "['/no/such/program', ")
    argv = [sys.executable, "-c", program, json.dumps([("web", "", {})])]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "web cannot be started" in ended.stdout


def test_one_deaf_to_the_request_is_killed_after_its_time(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("deaf", DEAF, {"stop_seconds": 0.3}), ("web", STEADY, {}))
    whole.wait_for(lambda: bool(whole.pids("deaf")) and bool(whole.pids("web")))
    whole.ask(signal.SIGINT)
    assert whole.end() == 0
    assert len(whole.pids("deaf", "heard")) == 1
    assert not alive(whole.pids("deaf")[0])


def test_a_second_ctrl_c_kills_what_is_still_stopping(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("deaf", DEAF, {"stop_seconds": 3600.0}))
    whole.wait_for(lambda: bool(whole.pids("deaf")))
    whole.ask(signal.SIGINT)
    whole.wait_for(lambda: bool(whole.pids("deaf", "heard")))
    whole.ask(signal.SIGINT)
    assert whole.end() == 0
    assert not alive(whole.pids("deaf")[0])


def test_nothing_outlives_a_killed_supervisor(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("web", STEADY, {}), ("deaf", DEAF, {}))
    whole.wait_for(lambda: bool(whole.pids("web")) and bool(whole.pids("deaf")))
    whole.ask(signal.SIGKILL)
    whole.end()
    whole.wait_for(lambda: not any(alive(pid) for name in ("web", "deaf") for pid in whole.pids(name)))


def test_what_a_dead_process_left_in_its_group_goes_with_it(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("parent", PARENT, {}))
    whole.wait_for(lambda: bool(whole.pids("parent")) and bool(whole.pids("parent", "grandchild")))
    os.kill(whole.pids("parent")[0], signal.SIGKILL)
    left = whole.pids("parent", "grandchild")[0]
    whole.wait_for(lambda: not alive(left) and len(whole.pids("parent", "grandchild")) == 2)
    whole.ask(signal.SIGTERM)
    assert whole.end() == 0
    assert not alive(whole.pids("parent", "grandchild")[1])


def test_a_program_of_one_run_ends_by_itself_and_the_rest_goes_on(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("web", STEADY, {}), ("demo", BRIEF, {"once": True}))
    whole.wait_for(lambda: bool(whole.pids("demo")) and bool(whole.pids("web")))
    whole.wait_for(lambda: not alive(whole.pids("demo")[0]))
    whole.ask(signal.SIGINT)
    assert whole.end() == 0
    assert len(whole.pids("demo")) == 1
    assert len(whole.pids("web", "stopped")) == 1


def test_a_program_of_one_run_that_fails_ends_the_whole(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("web", STEADY, {}), ("demo", BROKEN, {"once": True}))
    assert whole.end() == 1
    assert len(whole.pids("demo")) == 1


def test_ctrl_c_at_the_terminal_reaches_the_supervisor_alone(supervise: Callable[..., Supervised]) -> None:
    whole = supervise(("web", STEADY, {}))
    whole.wait_for(lambda: bool(whole.pids("web")))
    assert os.getpgid(whole.pids("web")[0]) == whole.pids("web")[0]

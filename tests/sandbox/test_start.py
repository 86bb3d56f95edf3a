"""What a started process is given and what not, and when it ends. Its walls are in tests/security."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import sandbox
from tests.sandbox.inside import inside

pytestmark = pytest.mark.slow

LIVES = "import socket; channel = socket.socket(fileno=3); channel.send(b'here'); channel.recv(1)"
# A parent of its own that starts one, tells its pid and waits to be killed.
PARENT = f"""
import sys, sandbox
child = sandbox.start([sys.executable, "-c", {LIVES!r}], profile="job-cpu", memory_bytes=1 << 30)
child.channel.recv(4)
print(child.pid, flush=True)
sys.stdin.read()
"""
# A process that forks twice as the zygote does: the forked one enters as a cell and tells its pid.
ZYGOTE = """
import os, socket, sandbox
channel = socket.socket(fileno=3)
parent = os.getpid()
if os.fork() == 0:
    sandbox.enter("cell-cpu", memory_bytes=1 << 30, parent=parent)
    channel.send(str(os.getpid()).encode())
    channel.recv(1)
else:
    channel.recv(1, socket.MSG_PEEK)
"""


def started(program: str) -> sandbox.Child:
    return sandbox.start([sys.executable, "-c", program], profile="job-cpu", memory_bytes=1 << 30)


def ends(pid: int) -> bool:
    """Within twenty seconds; a process that nobody waits for any more counts."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)


def test_the_environment_is_scrubbed_and_what_was_asked_for_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> dict[str, str]:
        import os

        return dict(os.environ)

    monkeypatch.setenv("STRONGROOM_SECRET_KEY_FILE", "/somewhere")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    answer = inside(look, environment={"OMP_NUM_THREADS": "2"})
    assert answer.value["OMP_NUM_THREADS"] == "2"
    assert answer.value["STRONGROOM_SANDBOX"] == "require"
    assert not {"PYTHONPATH", "STRONGROOM_SECRET_KEY_FILE", "VIRTUAL_ENV", "SSH_AUTH_SOCK"} & set(answer.value)
    assert answer.value["HOME"] == "/nonexistent"


def test_modules_come_from_installed_code_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> list[str]:
        import sys

        return sys.path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    paths = inside(look).value
    assert str(tmp_path) not in paths
    assert "" not in paths
    assert str(Path(__file__).resolve().parents[2]) not in paths


def test_the_child_has_the_channel_and_the_given_descriptors_in_order_and_no_other(tmp_path: Path) -> None:
    def look() -> list[str]:
        import os

        numbers = []
        for number in range(64):
            try:
                os.fstat(number)
                numbers.append(number)
            except OSError:
                pass
        return [str(numbers), os.pread(4, 9, 0).decode(), os.pread(5, 9, 0).decode(), os.pread(6, 9, 0).decode()]

    opened = []
    for text in ("first", "second", "third"):
        (tmp_path / text).write_text(text)
        opened.append(os.open(tmp_path / text, os.O_RDONLY))
    leaked = os.open(tmp_path / "first", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        # Given in another order than their numbers, so that a target is another one's source.
        given = [opened[2], opened[0], opened[1]]
        answer = inside(look, descriptors=given)
        assert answer.value == [str([0, 1, 2, 3, 4, 5, 6]), "third", "first", "second"]
        assert [os.pread(number, 9, 0) for number in given] == [b"third", b"first", b"second"]
    finally:
        for number in [*opened, leaked]:
            os.close(number)


def test_descriptors_travel_over_the_channel_after_entry(tmp_path: Path) -> None:
    (tmp_path / "sealed").write_text("bytes")
    program = """
import os, socket, sandbox
sandbox.enter("job-cpu", memory_bytes=1 << 30)
channel = socket.socket(fileno=3)
_, numbers, _, _ = socket.recv_fds(channel, 100, 1)
channel.send(os.read(numbers[0], 100))
"""
    child = started(program)
    try:
        with open(tmp_path / "sealed", "rb") as sealed:
            socket.send_fds(child.channel, [b"take"], [sealed.fileno()])
        assert child.channel.recv(100) == b"bytes"
    finally:
        child.end()


def test_packets_keep_their_borders() -> None:
    program = """
import socket
channel = socket.socket(fileno=3)
channel.send(b"one"); channel.send(b"two")
"""
    child = started(program)
    try:
        assert [child.channel.recv(100) for _ in range(3)] == [b"one", b"two", b""]
    finally:
        child.end()


def test_it_writes_nothing_where_nobody_asked(capfd: pytest.CaptureFixture[str]) -> None:
    child = started("import sys; print('plaintext'); sys.exit('plaintext')")
    try:
        assert child.channel.recv(1) == b""
        assert child.process.wait(20) == 1
    finally:
        child.end()
    assert capfd.readouterr() == ("", "")


def test_ending_a_child_kills_and_reaps_it() -> None:
    child = started(LIVES)
    assert child.channel.recv(4) == b"here"
    assert child.end() == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{child.pid}")


def test_ctrl_c_at_the_terminal_is_left_to_the_parent() -> None:
    child = started(LIVES)
    try:
        assert child.channel.recv(4) == b"here"
        child.process.send_signal(signal.SIGINT)
        child.channel.send(b".")
        assert child.process.wait(20) == 0
    finally:
        child.end()


def test_it_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert os.path.exists(f"/proc/{pid}")
    parent.kill()
    parent.communicate()
    assert ends(pid)


def test_it_dies_with_the_thread_that_started_it() -> None:
    children: list[sandbox.Child] = []

    def start_and_leave() -> None:
        children.append(started(LIVES))
        children[0].channel.recv(4)

    thread = threading.Thread(target=start_and_leave)
    thread.start()
    thread.join()
    assert children[0].process.wait(20) == -signal.SIGKILL
    children[0].end()


def test_a_cell_forked_by_a_zygote_dies_with_it() -> None:
    zygote = started(ZYGOTE)
    cell = int(zygote.channel.recv(100))
    assert os.path.exists(f"/proc/{cell}")
    zygote.process.kill()
    assert ends(cell)
    zygote.end()


def test_a_process_whose_parent_is_gone_already_does_not_live() -> None:
    child = started("import os, sandbox; sandbox.enter('job-cpu', memory_bytes=1 << 30, parent=os.getpid())")
    assert child.process.wait(20) == -signal.SIGKILL
    child.end()


def test_an_unknown_profile_is_named_with_those_that_exist() -> None:
    with pytest.raises(sandbox.UnknownProfile, match="no profile 'job-gpu'; there are job-cpu, cell-cpu"):
        sandbox.start([sys.executable, "-c", ""], profile="job-gpu", memory_bytes=1)


def test_a_program_without_its_path_is_refused() -> None:
    with pytest.raises(ValueError, match="absolute path"):
        sandbox.start(["python", "-c", ""], profile="job-cpu", memory_bytes=1)


def test_what_the_start_asked_for_is_what_entering_does() -> None:
    child = sandbox.start(
        [
            sys.executable,
            "-c",
            "import socket, sandbox; c = socket.socket(fileno=3); "
            "c.send(str(sandbox.enter('job-cpu', memory_bytes=1 << 30)).encode())",
        ],
        profile="job-cpu",
        memory_bytes=1 << 30,
        mode="off",
    )
    try:
        assert child.channel.recv(100) == b"off"
    finally:
        child.end()


def test_a_value_of_the_environment_cannot_switch_the_walls_off() -> None:
    def nothing() -> None:
        return None

    answer = inside(nothing, environment={"STRONGROOM_SANDBOX": "off"})
    assert answer.report == str(sandbox.report())

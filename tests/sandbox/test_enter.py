"""Entering says what walls stand; where one is missing, the mode decides. Such a kernel is played by a filter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import sandbox

# As a container does: a filter from outside answers as if the kernel had no such call.
WITHOUT = """
import errno, pyseccomp
rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
for name in {calls!r}:
    rules.add_rule(pyseccomp.ERRNO({errno}), name)
rules.load()
"""
ENTERS = """
import json, os, sandbox
try:
    report = sandbox.enter("job-cpu", memory_bytes=1 << 30, mode={mode!r})
    try:
        open("/etc/passwd").close()
        reads = True
    except OSError:
        reads = False
    print(json.dumps([str(report), list(report.missing), reads]))
except sandbox.SandboxUnavailable as problem:
    print(json.dumps([str(problem), list(problem.missing), None]))
"""
LANDLOCK = ["landlock_create_ruleset"]


def entering(mode: str, without: list[str] | None = None) -> list[object]:
    program = WITHOUT.format(calls=without, errno="errno.ENOSYS") if without else ""
    argv = [sys.executable, "-I", "-c", program + ENTERS.format(mode=mode)]
    return list(json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout))


def test_what_the_kernel_offers_is_what_entering_brings() -> None:
    report = sandbox.report()
    assert entering("auto") == [str(report), list(report.missing), False]


def test_every_wall_stands_here() -> None:
    assert sandbox.report().missing == ()
    assert str(sandbox.report()).startswith("landlock ")
    assert str(sandbox.report()).endswith(", seccomp, namespaces")


def test_off_does_nothing_and_says_so() -> None:
    assert entering("off") == ["off", ["landlock", "seccomp", "namespaces"], True]


@pytest.mark.parametrize(
    ("calls", "name", "still"),
    [
        (LANDLOCK, "landlock", "seccomp, namespaces"),
        (["unshare"], "namespaces", ", seccomp"),
        (["seccomp"], "seccomp", ", namespaces"),
    ],
)
def test_a_kernel_that_lacks_a_wall_is_named_and_the_others_stand(calls: list[str], name: str, still: str) -> None:
    report, missing, _ = entering("auto", without=calls)
    assert missing == [name]
    assert str(report).endswith(still)


def test_require_refuses_a_kernel_that_lacks_a_wall() -> None:
    message, missing, _ = entering("require", without=["unshare"])
    assert missing == ["namespaces"]
    assert "does not offer: namespaces" in str(message)


def test_a_wall_is_enough_by_itself_without_landlock_nothing_is_written_or_connected() -> None:
    program = (
        WITHOUT.format(calls=LANDLOCK, errno="errno.ENOSYS")
        + """
import os, socket, sandbox
sandbox.enter("job-cpu", memory_bytes=1 << 30, mode="auto")
for attempt in (lambda: open("/tmp/strongroom-left-over", "w"), lambda: socket.socket(), os.fork):
    try:
        attempt()
        print("ESCAPED", flush=True)
    except PermissionError:
        print("refused", flush=True)
"""
    )
    told = subprocess.run([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, check=True).stdout
    assert told.split() == [b"refused"] * 3


def test_an_unknown_mode_or_profile_is_refused_before_anything_is_closed() -> None:
    with pytest.raises(ValueError, match="'maybe' is none of auto, require, off"):
        sandbox.enter("job-cpu", memory_bytes=1, mode="maybe")  # type: ignore[arg-type]  # what a setting may hold
    with pytest.raises(sandbox.UnknownProfile, match="there are job-cpu, cell-cpu"):
        sandbox.enter("anything", memory_bytes=1)

"""Starting a process that will lock itself in: no shell, a scrubbed environment, exactly the descriptors given.

The child's descriptor 3 is its end of a SOCK_SEQPACKET pair, 4, 5, … are `descriptors` in order; all else is closed.
It is killed when the *thread* that called start() ends (PR_SET_PDEATHSIG watches a thread): supervise it from that
same thread, or start it from one that lives as long as the process. Its standard output and error go nowhere unless
`errors` says so, since a traceback can carry a tenant's data. What the child may do is not decided here: it calls
enter() itself, before it imports anything that makes threads.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sandbox.enter import MODE_VARIABLE
from sandbox.errors import SandboxUnavailable
from sandbox.probe import report
from sandbox.profiles import named
from sandbox.report import Mode, known_mode

CHANNEL = 3
MEMORY_VARIABLE = "STRONGROOM_MEMORY_BYTES"
LAUNCHER = str(Path(__file__).with_name("launch.py"))
# Isolated: neither the working folder, PYTHON* variables nor the user's site have a say. No .pyc is written.
ISOLATED = ("-I", "-P", "-B")

ENVIRONMENT: Mapping[str, str] = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    # Looked up by libraries; without it they ask the user database, which is closed.
    "HOME": "/nonexistent",
    "USER": "strongroom",
    "PATH": "/nonexistent",
    # ONNX Runtime would open a database of its own on the disk at import, which a zygote's cells would all inherit.
    "ORT_DISABLE_TELEMETRY": "1",
    # OpenBLAS starts its threads at import and each reserves an arena; one is enough beside torch's own.
    "OPENBLAS_NUM_THREADS": "1",
    # Every optimizer of torch imports its compiler, which insists on making this folder: one that is always there.
    "TORCHINDUCTOR_CACHE_DIR": "/proc/self/task",
}


@dataclass(frozen=True, slots=True)
class Child:
    """A started process and our end of its channel."""

    process: subprocess.Popen[bytes]
    channel: socket.socket

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> int:
        """Kill it if it still runs, reap it, close the channel; the exit code."""
        self.process.kill()
        code = self.process.wait()
        self.channel.close()
        return code


def start(
    argv: Sequence[str],
    *,
    profile: str,
    memory_bytes: int,
    descriptors: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    mode: Mode = "auto",
    errors: int | IO[bytes] = subprocess.DEVNULL,
) -> Child:
    """`argv` as in `[sys.executable, "-m", "training.run"]`; Python is isolated. The caller keeps its descriptors."""
    named(profile)
    if known_mode(mode) == "require" and report().missing:
        raise SandboxUnavailable(report().missing)
    scrubbed = {**ENVIRONMENT, MEMORY_VARIABLE: str(memory_bytes), **(environment or {})}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            numbers = [theirs.fileno(), *descriptors]
            process = subprocess.Popen(
                _command(argv, numbers),
                env={**scrubbed, MODE_VARIABLE: mode},
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd="/",
            )
    except BaseException:
        ours.close()
        raise
    return Child(process, ours)


def _command(argv: Sequence[str], numbers: Sequence[int]) -> list[str]:
    program = list(argv)
    if not program or not os.path.isabs(program[0]):
        raise ValueError("argv begins with an absolute path: [sys.executable, '-m', module, …]")
    if program[0] == sys.executable:
        program[1:1] = ISOLATED
    launcher = [sys.executable, "-I", "-S", "-B", LAUNCHER]
    return [*launcher, str(os.getpid()), ",".join(map(str, numbers)), *program]

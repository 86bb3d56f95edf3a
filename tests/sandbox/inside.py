"""Runs one function of a test in a real sandboxed process and hands back what it returned or raised.

The function travels as source text, so it can use nothing of its module: what it needs it imports itself. Its facts
(paths, pids, descriptor numbers) arrive as keyword arguments in JSON.
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sandbox

MIB = 1 << 20

# In the process: enter, then run, then tell. `before` runs outside, as code of ours would.
PROGRAM = """
import json, socket
import sandbox
{before}
channel = socket.socket(fileno=3)
asked = json.loads(channel.recv(65536))
try:
    report = sandbox.enter(asked["profile"], memory_bytes=asked["memory_bytes"])
except sandbox.SandboxError as problem:
    channel.send(json.dumps({{"refused": type(problem).__name__}}).encode())
    raise SystemExit(1)
{attempt}
try:
    answer = {{"value": {name}(**asked["facts"])}}
except MemoryError:
    answer = {{"error": "MemoryError"}}
except OSError as problem:
    answer = {{"error": type(problem).__name__, "errno": problem.errno}}
answer["report"] = str(report)
channel.send(json.dumps(answer).encode())
"""


@dataclass(frozen=True)
class Answer:
    value: Any = None
    error: str | None = None
    errno: int | None = None
    report: str | None = None
    refused: str | None = None
    exit_code: int | None = None


def inside(
    attempt: Callable[..., object],
    *,
    profile: str = "job-cpu",
    facts: Mapping[str, object] | None = None,
    before: str = "",
    descriptors: Sequence[int] = (),
    memory_bytes: int = 512 * MIB,
    environment: Mapping[str, str] | None = None,
    mode: sandbox.Mode = "require",
) -> Answer:
    source = textwrap.dedent(inspect.getsource(attempt))
    source = source[source.index("def ") :]  # a decorator would not be known there
    program = PROGRAM.format(before=textwrap.dedent(before), attempt=source, name=attempt.__name__)
    child = sandbox.start(
        [sys.executable, "-c", program],
        profile=profile,
        memory_bytes=memory_bytes,
        descriptors=descriptors,
        environment=environment,
        mode=mode,
        errors=sys.__stderr__.fileno() if sys.__stderr__ else -3,
    )
    try:
        asked = {"profile": profile, "memory_bytes": memory_bytes, "facts": dict(facts or {})}
        child.channel.send(json.dumps(asked).encode())
        told = child.channel.recv(65536)
        code = child.process.wait(30)
        return Answer(**json.loads(told)) if told else Answer(exit_code=code)
    finally:
        child.end()

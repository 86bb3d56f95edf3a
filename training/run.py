"""`python -m training.run`: one job in a process of its own, locked in before anything else is imported.

Descriptor 3 is the channel to the worker. The kind of the spec decides which module works; whatever happens there ends
in one packet, `done` or `failed`, here. A defect of ours becomes `internal` without text: its words could be
a tenant's. The standard error, which goes nowhere unless the parent says so, gets the kind of error and places in our
code only.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import sandbox

if TYPE_CHECKING:
    from training.channel import Channel, Start

PROFILE = "job-cpu"
MEMORY_VARIABLE = "STRONGROOM_MEMORY_BYTES"
# Each has run(start, channel) -> result; imported once the job is known, since some need torch and some do not.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "train": "training.kinds.train",
        "finetune": "training.kinds.finetune",
        "check": "training.kinds.check",
        "import": "training.kinds.import_model",
        "predict": "training.kinds.predict",
    }
)

Failure = tuple[str, str, str | None]


def main() -> int:
    report = sandbox.enter(PROFILE, memory_bytes=int(os.environ[MEMORY_VARIABLE]))
    from training.channel import Channel, ParentGone

    channel = Channel(sandbox.CHANNEL)
    try:
        return _serve(channel, str(report))
    except ParentGone:
        return 1
    finally:
        channel.close()


def _serve(channel: Channel, walls: str) -> int:
    from training.channel import ParentGone

    try:
        start = channel.start()
        # Read by numpy's and torch's threads when they are imported, which is after this.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(start.threads)
        channel.ready(torch_version=importlib.metadata.version("torch"), device="cpu", sandbox=walls)
        result = _kind(start)(start, channel)
    except ParentGone:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:  # Rust's panics are no Exception
        channel.failed(*explained(problem))
        return 1
    channel.done(result)
    return 0


def _kind(start: Start) -> Callable[[Start, Channel], Mapping[str, Any]]:
    run: Callable[[Start, Channel], Mapping[str, Any]] = importlib.import_module(KINDS[start.spec["kind"]]).run
    return run


def explained(problem: BaseException) -> Failure:
    """Code, message and hint for the tenant."""
    from sealing import ArtefactCorrupt
    from training.errors import JobError
    from training.spec import SpecProblems

    if isinstance(problem, JobError):
        return problem.code, problem.message, problem.hint
    if isinstance(problem, ArtefactCorrupt):
        return "artefact_corrupt", str(problem), "upload it again; what is stored was damaged or exchanged"
    if isinstance(problem, SpecProblems):
        first = problem.problems[0]
        return "invalid_spec", f"{first.path} {first.message}", first.hint
    if is_memory(problem):
        return "out_of_memory", "the job needs more memory than it may have", "raise resources.memory_bytes"
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "storage_full", "the store has no room for what the job makes", None
    _note(problem)
    return "internal", "the job failed by a defect of the platform", None


def is_memory(problem: BaseException) -> bool:
    """Python's own error, and what torch and ONNX Runtime say instead of it."""
    if isinstance(problem, MemoryError):
        return True
    words = str(problem)
    return isinstance(problem, RuntimeError) and any(
        sign in words for sign in ("can't allocate memory", "bad_alloc", "not enough memory")
    )


def _note(problem: BaseException) -> None:
    """The kind of error and where in the code: no message, no value."""
    print(type(problem).__qualname__, file=sys.stderr)
    for frame in traceback.extract_tb(problem.__traceback__):
        print(f"  {frame.filename}:{frame.lineno} {frame.name}", file=sys.stderr)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the last packet is out: a thread left behind in a library must not hold the end up

"""The door: starting a process that locks itself in, going in, and saying what this kernel offers.

A leaf: it knows nothing of jobs, cells or tenants. Only Linux; only CPU profiles (a GPU needs device nodes and more
address space). It does not defend against a hole in the kernel, nor hide how long a computation takes.
"""

from sandbox.enter import enter, thread_count
from sandbox.errors import NotSingleThreaded, SandboxError, SandboxUnavailable, UnknownProfile
from sandbox.linux import die_with
from sandbox.probe import report
from sandbox.profiles import DEFAULT_MEMORY_BYTES, PROFILES
from sandbox.report import Mode, Report
from sandbox.start import CHANNEL, Child, start

__all__ = [
    "CHANNEL",
    "DEFAULT_MEMORY_BYTES",
    "PROFILES",
    "Child",
    "Mode",
    "NotSingleThreaded",
    "Report",
    "SandboxError",
    "SandboxUnavailable",
    "UnknownProfile",
    "die_with",
    "enter",
    "report",
    "start",
    "thread_count",
]

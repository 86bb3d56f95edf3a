"""Ceilings of one process: memory, size of what it writes, descriptors, threads, no core file.

Address space is what Linux can bound for a single process without a cgroup; resident memory is never more. A limit
that is lower already stays as it is.
"""

from __future__ import annotations

import resource

from sandbox.linux import not_dumpable
from sandbox.profiles import Profile


def apply(profile: Profile, memory_bytes: int) -> None:
    """`memory_bytes` is for the work; the profile's own code and stacks come on top."""
    if memory_bytes <= 0:
        raise ValueError(f"memory_bytes is {memory_bytes}; it must be positive")
    not_dumpable()
    ceiling = memory_bytes + profile.code_bytes
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_AS, ceiling)
    # A memfd counts in no address space until it is mapped, and a slot lies on the disk: neither outgrows the memory.
    _lower(resource.RLIMIT_FSIZE, ceiling)
    _lower(resource.RLIMIT_NOFILE, profile.open_files)
    _lower(resource.RLIMIT_MEMLOCK, 0)


def bound_threads(profile: Profile) -> None:
    """Only inside a user namespace, where the kernel counts this process's threads and not all of the user's."""
    _lower(resource.RLIMIT_NPROC, profile.threads)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))

"""What a cell holds in memory, and giving it back."""

from __future__ import annotations

import ctypes
import gc
import resource
from typing import Final

MALLOC_TRIM_PAD: Final = 1 << 20


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_memory_back() -> None:
    """A freed model's pages return to the system, not only to the allocator."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(MALLOC_TRIM_PAD)

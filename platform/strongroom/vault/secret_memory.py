"""Memory for opened keys: in no core dump, in no swap, in no forked child; in no other process's reach where the kernel
has `memfd_secret`, which takes the pages out of its own map.

It knows slots of bytes and nothing of keys. What it cannot promise: whoever uses a key copies it, and copies remain in
libraries and in freed heap. Thread-safe.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from dataclasses import dataclass

SLOT_BYTES = 128
PAGE_BYTES = mmap.PAGESIZE
_MEMFD_SECRET = 447  # the same number on every architecture
_DONTFORK, _DONTDUMP, _WIPEONFORK = 10, 16, 18
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


@dataclass(frozen=True, slots=True)
class Slot:
    address: int
    length: int


class SecretMemory:
    """Pages are asked for as they are needed and are kept; a slot that is wiped is given out again."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()  # guards the two below
        self._free: list[int] = []

    def keep(self, secret: bytes) -> Slot:
        if len(secret) > SLOT_BYTES:
            raise ValueError(f"a slot has {SLOT_BYTES} bytes")
        self._require_owner()
        with self._lock:
            if not self._free:
                self._grow()
            address = self._free.pop()
        ctypes.memmove(address, secret, len(secret))
        return Slot(address, len(secret))

    def read(self, slot: Slot) -> bytes:
        self._require_owner()
        return ctypes.string_at(slot.address, slot.length)

    def wipe(self, slot: Slot) -> None:
        if os.getpid() != self._owner:  # a forked child drops what it never had
            return
        ctypes.memset(slot.address, 0, SLOT_BYTES)
        with self._lock:
            self._free.append(slot.address)

    def _require_owner(self) -> None:
        if os.getpid() != self._owner:
            raise RuntimeError("keys do not outlive a fork; the child opens its own")

    def _grow(self) -> None:
        address = _hidden_page()
        if address is None:
            address = _locked_page()
        self._free.extend(range(address, address + PAGE_BYTES, SLOT_BYTES))


def _hidden_page() -> int | None:
    descriptor = _libc.syscall(_MEMFD_SECRET, os.O_CLOEXEC)
    if descriptor < 0:
        return None
    try:
        os.ftruncate(descriptor, PAGE_BYTES)
        return _map(mmap.MAP_SHARED, descriptor, _DONTFORK)
    except OSError:  # over the limit of locked memory
        return None
    finally:
        os.close(descriptor)


def _locked_page() -> int:
    address = _map(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, _WIPEONFORK)
    _libc.madvise(address, PAGE_BYTES, _DONTDUMP)
    _libc.mlock(address, PAGE_BYTES)  # over the limit of locked memory it may be swapped, and nothing else changes
    return address


def _map(flags: int, descriptor: int, fork_advice: int) -> int:
    address = _libc.mmap(None, PAGE_BYTES, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0)
    if address is None or address == _FAILED:
        raise OSError(ctypes.get_errno(), "no memory for keys")
    if _libc.madvise(address, PAGE_BYTES, fork_advice):
        raise OSError(ctypes.get_errno(), "memory for keys would be carried over a fork")
    return int(address)

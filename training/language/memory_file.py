"""A file that lies in memory only: written once, sealed against change, then read by llama.cpp and by who stores it.

So that the bytes which were tried are the bytes that are kept, and there is one copy of them. The memory counts for
the process: where no more may be had, MemoryError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from collections.abc import Iterator

from training.language.gguf import Bytes

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_FULL = (errno.EFBIG, errno.ENOSPC, errno.ENOMEM)
_PIECE = 2**20


class MemoryFile:
    """Closed when nobody holds it any more. Written by one thread; read by any, once it is sealed."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size_bytes = 0
        weakref.finalize(self, os.close, self.descriptor)

    def write(self, piece: Bytes) -> None:
        rest = memoryview(piece).cast("B")
        while rest:
            try:
                written = os.write(self.descriptor, rest)
            except OSError as problem:
                if problem.errno in _FULL:
                    raise MemoryError from None
                raise
            self.size_bytes += written
            rest = rest[written:]

    def seal(self) -> None:
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Exactly so many bytes; fewer at the end of the file."""
        pieces = bytearray()
        while len(pieces) < size_bytes and (
            piece := os.pread(self.descriptor, size_bytes - len(pieces), offset + len(pieces))
        ):
            pieces += piece
        return bytes(pieces)

    def pieces(self, offset: int = 0, size_bytes: int | None = None) -> Iterator[bytes]:
        """A range in order, a megabyte at a time."""
        end = self.size_bytes if size_bytes is None else offset + size_bytes
        while offset < end:
            piece = self.read(offset, min(_PIECE, end - offset))
            if not piece:
                raise EOFError(f"the file ends at {offset}, not at {end}")
            yield piece
            offset += len(piece)

"""The file in memory: what was written is read, nothing changes it once it is sealed, and too much of it is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from training.language.memory_file import MemoryFile

TOO_MUCH = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
from training.language.memory_file import MemoryFile
try:
    MemoryFile().write(bytes(2**21))
except MemoryError:
    print("MemoryError")
"""


def made(content: bytes) -> MemoryFile:
    file = MemoryFile()
    file.write(content)
    return file


def test_what_was_written_is_read_in_any_range() -> None:
    file = made(b"0123456789")
    file.write(memoryview(b"ab"))
    assert (file.size_bytes, file.read(8, 3), file.read(10, 100)) == (12, b"89a", b"ab")
    assert b"".join(file.pieces(2, 5)) == b"23456"
    assert b"".join(file.pieces()) == b"0123456789ab"


def test_large_content_comes_in_pieces() -> None:
    file = made(bytes(3 * 2**20 + 5))
    assert [len(piece) for piece in file.pieces()] == [2**20, 2**20, 2**20, 5]


def test_a_range_beyond_the_end_is_an_error() -> None:
    with pytest.raises(EOFError):
        list(made(b"abc").pieces(0, 4))


def test_nothing_changes_it_once_it_is_sealed() -> None:
    file = made(b"abc")
    file.seal()
    for change in (lambda: file.write(b"d"), lambda: os.ftruncate(file.descriptor, 0)):
        with pytest.raises(PermissionError):
            change()
    assert file.read(0, 3) == b"abc"


def test_the_descriptor_is_closed_with_the_last_that_holds_it() -> None:
    file = made(b"abc")
    descriptor = file.descriptor
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_more_than_the_process_may_have_is_a_lack_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", TOO_MUCH], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.strip() == "MemoryError"

"""Sealing and opening 1 GiB against plain copying of the same bytes with one thread, in memory: medians of five.

`load` is what a model load is: from the file into fresh memory. Two workers are what the product uses from 8 MiB up.
"""

from __future__ import annotations

import mmap
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import sealing
from tests.bench.report import Figure

GIB = 1 << 30
STEP = 1 << 20
ROUNDS = 5
MEMORY = "/dev/shm"  # noqa: S108  # a page cache may be taken away meanwhile; our folder in it is new and 0700


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="sr-bench-", dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        yield from _measure(Path(folder))


def _measure(folder: Path) -> Iterator[Figure]:
    source = os.open(folder / "plain", os.O_RDWR | os.O_CREAT, 0o600)
    block = os.urandom(STEP)
    for _ in range(GIB // STEP):
        os.write(source, block)
    key, identity = sealing.new_data_key(), sealing.Identity(uuid.uuid4(), uuid.uuid4(), "model")
    copied, *sealed = _medians(
        lambda: _copy(source, folder),
        lambda: _seal(source, folder, key, identity, 1),
        lambda: _seal(source, folder, key, identity, 2),
    )
    target = os.open(folder / "sealed", os.O_RDONLY)
    tag = os.pread(target, 32, 64)
    reader = sealing.SealReader(target, key, identity, header_tag=tag, stored_bytes=os.fstat(target).st_size)
    loaded, *opened = _medians(lambda: _load(source), lambda: _open(reader, 1), lambda: _open(reader, 2))
    os.close(target)
    os.close(source)
    for what, plain, times in (("seal", copied, sealed), ("load", loaded, opened)):
        against = "plain write" if what == "seal" else "plain read"
        for workers, seconds in enumerate(times, 1):
            yield Figure.against(f"{what} 1 GiB, {workers} workers, time against {against}", seconds, "s", plain)


def _medians(*runs: Callable[[], None]) -> list[float]:
    """In turns, so that what the machine does beside meets all of them."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for taken, run in zip(seconds, runs, strict=True):
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def _fresh(folder: Path, name: str) -> int:
    (folder / name).unlink(missing_ok=True)
    return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)


def _copy(source: int, folder: Path) -> None:
    target, buffer = _fresh(folder, "copy"), memoryview(bytearray(STEP))
    for offset in range(0, GIB, STEP):
        os.preadv(source, [buffer], offset)
        os.write(target, buffer)
    os.close(target)


def _seal(source: int, folder: Path, key: bytes, identity: sealing.Identity, workers: int) -> None:
    target = _fresh(folder, "sealed")
    with mmap.mmap(source, GIB, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as plain:
        sealing.seal_memory(plain, target, key, identity, workers=workers)
    os.close(target)


def _load(source: int) -> None:
    memory = memoryview(bytearray(GIB))
    for offset in range(0, GIB, STEP):
        os.preadv(source, [memory[offset : offset + STEP]], offset)


def _open(reader: sealing.SealReader, workers: int) -> None:
    memory = memoryview(bytearray(reader.size_bytes))
    reader.readinto(memory, workers=workers)

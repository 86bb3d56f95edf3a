"""Sealing and opening 1 GiB against plain copying of the same bytes with one thread, page cache warm: medians of three.

`load` is what a model load is: from the file into fresh memory. Two workers are what the product uses from 8 MiB up.
"""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import sealing
from tests.bench.report import Figure

GIB = 1 << 30
STEP = 1 << 20


def measure(folder: Path) -> Iterator[Figure]:
    source = os.open(folder / "plain", os.O_RDWR | os.O_CREAT, 0o600)
    block = os.urandom(STEP)
    for _ in range(GIB // STEP):
        os.write(source, block)
    key, identity = sealing.new_data_key(), sealing.Identity(uuid.uuid4(), uuid.uuid4(), "model")
    copied = _median(lambda: _copy(source, folder))
    for workers in (1, 2):
        seconds = _median(lambda workers=workers: _seal(source, folder, key, identity, workers))  # type: ignore[misc]  # bound now
        yield Figure.against(f"seal 1 GiB, {workers} workers, time against plain write", seconds, "s", copied)
    loaded = _median(lambda: _load(source))
    target = os.open(folder / "sealed", os.O_RDONLY)
    tag = os.pread(target, 32, 64)
    reader = sealing.SealReader(target, key, identity, header_tag=tag, stored_bytes=os.fstat(target).st_size)
    for workers in (1, 2):
        seconds = _median(lambda workers=workers: _open(reader, workers))  # type: ignore[misc]  # bound now
        yield Figure.against(f"load 1 GiB, {workers} workers, time against plain read", seconds, "s", loaded)
    os.close(target)
    os.close(source)


def _median(run: Callable[[], None]) -> float:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


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
    sealing.seal_file(source, target, key, identity, workers=workers)
    os.close(target)


def _load(source: int) -> None:
    memory = memoryview(bytearray(GIB))
    for offset in range(0, GIB, STEP):
        os.preadv(source, [memory[offset : offset + STEP]], offset)


def _open(reader: sealing.SealReader, workers: int) -> None:
    memory = memoryview(bytearray(reader.size_bytes))
    reader.readinto(memory, workers=workers)

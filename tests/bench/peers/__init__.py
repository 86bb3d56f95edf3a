"""Those whom we are compared with, each in a process of the environment .venv/peers."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BIN = Path(__file__).parents[3] / ".venv" / "peers" / "bin"


@contextmanager
def running(
    command: Sequence[Any], log: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # http to this machine
                return
        except OSError:
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < ends, log.read_text()[-4000:]
            time.sleep(0.2)  # between two tries, until the deadline above

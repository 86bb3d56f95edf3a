"""Kombu's file transport, made whole: messages and routes appear under their names only when written to the end.

Kombu opens a message's file before it writes it, so a consumer in between reads an empty one: 3 of 2,000 messages
were lost with three consumers, and a half-written file ends the Celery worker. Its table of routes has the same
gap, and a message that is taken goes through the system's temporary folder. Here all is written aside and renamed,
and taking a message is one unlink, which exactly one consumer wins. It knows no Celery; messages are wake-ups and
carry nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from time import time_ns
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    """A folder of messages, another of routes; names sort by the time they were sent."""

    # kombu's own classes name the second one differently
    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        _write(Path(self.data_folder_out), f"{time_ns():020d}_{uuid4()}.{queue}.msg", dumps(payload))

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        folder, ending = Path(self.data_folder_in), f"{queue}.msg"
        for name in sorted(os.listdir(folder)):
            if name.partition(".")[2] == ending and (text := _take(folder / name)) is not None:
                return loads(text)
        raise Empty

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str | None) -> None:
        route = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        folder = Path(self.control_folder)
        with _alone(folder):
            known = self.get_table(exchange)
            if route not in known:
                _write(folder, f"{exchange}.exchange", dumps([route, *known]))


class Transport(filesystem.Transport):
    """What `broker_transport` names in embedded mode."""

    Channel = Channel


def _write(folder: Path, name: str, text: str) -> None:
    draft = folder / f".{name}.{uuid4()}.tmp"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.rename(folder / name)


def _take(path: Path) -> str | None:
    """The message's text, or None when another consumer was quicker."""
    try:
        text = path.read_text()
        path.unlink()
    except FileNotFoundError:
        return None
    return text


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer of routes at a time, over all processes."""
    folder.mkdir(exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

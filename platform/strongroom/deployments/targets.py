"""Deployment → cell, from the files that the agent keeps: no database and no broker on a prediction's path.

The runtime folder's path stands in `$STRONGROOM_HOME/runtime`; in it are `cells.json` (replaced by rename), the cells'
sockets and `agent.sock`. Knows how to find and to ask; connects to nothing. Belongs to one thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

CELLS = "cells.json"
ASK_SOCKET = "agent.sock"
OPEN_SOCKET = "agent.stream"
LOOK_SECONDS = 0.05
ASK_AGAIN_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """One cell as the agent tells of it."""

    tenant: str
    device: str
    socket: Path
    state: str  # starting, ready, draining, dead


@dataclass(slots=True)
class Snapshot:
    """One reading of cells.json. `ready` and `failed` are keyed by (tenant, deployment, version)."""

    generation: int = -1
    ready: dict[tuple[str, str, str], Target] = field(default_factory=dict)
    failed: set[tuple[str, str, str]] = field(default_factory=set)
    cells: list[Target] = field(default_factory=list)


class Targets:
    """What is served on this node, at most LOOK_SECONDS old."""

    def __init__(self, home: Path) -> None:
        self._pointer = home / "runtime"
        self.folder: Path | None = None
        self.snapshot = Snapshot()
        self._stamp: tuple[int, int, int] | None = None
        self._looked_at = float("-inf")
        self._asked: dict[tuple[str, str], float] = {}

    def find(self, tenant: str, deployment: str, version: str, *, now: bool = False) -> Target | None:
        """The cell that has it loaded; `now` looks at the file although the last look is fresh."""
        self.look(now=now)
        return self.snapshot.ready.get((tenant, deployment, version))

    def has_failed(self, tenant: str, deployment: str, version: str) -> bool:
        return (tenant, deployment, version) in self.snapshot.failed

    def look(self, *, now: bool = False) -> None:
        if not now and monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = monotonic()
        if not self._changed():
            self._find_folder()

    def ask(self, tenant: str, deployment: str) -> None:
        """Tells the agent that a deployment is wanted; without an answer, at most once a second for each."""
        now = monotonic()
        if now - self._asked.get((tenant, deployment), float("-inf")) < ASK_AGAIN_SECONDS or self.folder is None:
            return
        if len(self._asked) > 10_000:
            self._asked.clear()
        self._asked[(tenant, deployment)] = now
        message = json.dumps({"want": "load", "tenant": tenant, "deployment": deployment}).encode()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message, str(self.folder / ASK_SOCKET))

    def _find_folder(self) -> None:
        """The agent may have begun again with another folder, or none is there yet."""
        try:
            folder = Path(self._pointer.read_text().strip())
        except OSError:
            return
        if folder != self.folder:
            self.folder, self._stamp = folder, None
            self._changed()

    def _changed(self) -> bool:
        """Reads cells.json where it is another file than before; False where there is none."""
        if self.folder is None:
            return False
        path = self.folder / CELLS
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self.snapshot = _snapshot(json.loads(path.read_bytes()), self.folder)
                self._stamp = stamp
        except FileNotFoundError:
            if self._stamp is not None:
                self.snapshot, self._stamp = Snapshot(), None
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("cells.json cannot be read: %s", type(error).__name__)
        return True


def _snapshot(document: dict[str, Any], folder: Path) -> Snapshot:
    found = Snapshot(generation=int(document["generation"]))
    for cell in document["cells"]:
        target = Target(cell["tenant"], cell["device"], folder / cell["socket"], cell["state"])
        found.cells.append(target)
        if target.state == "ready":
            found.ready |= dict.fromkeys(_keys(target.tenant, cell["deployments"]), target)
        found.failed |= set(_keys(target.tenant, cell.get("failed", {})))
    return found


def _keys(tenant: str, deployments: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    return [(tenant, name, version) for name, versions in deployments.items() for version in versions]

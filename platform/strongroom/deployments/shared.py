"""Weights that several tenants' cells of this node map: one sealed, read-only copy in memory for each public model.

The agent never sees the plaintext: a cell that does nothing else decrypts it into a memfd, seals that against any
writing, hands it over and ends. Each cell that maps it gets a descriptor of its own (a shared one would share its
offset). A copy lives as long as a deployment wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

from strongroom.deployments.cells import Cell, CellLost, LoadRefused, Zygote
from strongroom.deployments.rows import Order

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

GIVER_LOST = "giver_lost"


class SharedWeights:
    """On the agent's loop."""

    def __init__(self, zygote: Zygote, folder: Path, names: Callable[[], str]) -> None:
        self._zygote, self._folder, self._names = zygote, folder, names
        self._held: dict[UUID, int] = {}  # by artefact
        self._locks: dict[UUID, asyncio.Lock] = {}

    async def share(self, order: Order) -> None:
        """Turns the order of a public model into one of its shared copy. LoadRefused."""
        async with self._locks.setdefault(order.artefact, asyncio.Lock()):
            if order.artefact not in self._held:
                try:
                    self._held[order.artefact] = await self._given(order)
                except CellLost as error:  # not the end of the cell that asks
                    raise LoadRefused(GIVER_LOST, f"the cell that decrypts the shared copy ended: {error}") from None
            held = self._held[order.artefact]
        order.forget()
        order.descriptor, order.plain = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC), True

    def keep(self, artefacts: Iterable[UUID]) -> None:
        """Frees the copies of all others."""
        for gone in self._held.keys() - set(artefacts):
            os.close(self._held.pop(gone))
            self._locks.pop(gone, None)

    async def _given(self, order: Order) -> int:
        path = self._folder / self._names()
        cell = await Cell.start(self._zygote, order.tenant, "cpu", path)
        try:
            descriptor = await cell.give(order)
        finally:
            cell.end()
        if not _is_sealed(descriptor, order):
            os.close(descriptor)
            raise LoadRefused("load_failed", "the shared copy is not sealed")
        return descriptor


def _is_sealed(descriptor: int, order: Order) -> bool:
    with contextlib.suppress(OSError):
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
        return sealed and os.fstat(descriptor).st_size == order.size_bytes
    return False

"""What is served, in memory: deployments with their live version, interface, limits and policy, one look-up a request.

An entry is read from the database at its first use and again at the first use after a change (the generation
`deployments`). While the database is away, entries go on serving for
STRONGROOM_STALE_SECONDS, then 503. Knows no cells: where a deployment is loaded is deployments/targets.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from time import monotonic
from uuid import UUID

from django.conf import settings
from django.db import Error

from strongroom.access.generations import GENERATIONS
from strongroom.deployments.served import Served, load
from strongroom.edge import database
from strongroom.errors import NotFound, Unavailable
from strongroom.tenants import names

MAX_ENTRIES = 20_000
ABSENT_SECONDS = 0.1  # that a missing one is believed missing: it may be made before the generations tell of it


@dataclass(slots=True)
class _Entry:
    served: Served | None  # None: there is no such deployment
    generation: int
    read_at: float  # of monotonic()


class Deployments:
    """The entries of one process, by tenant and name. Everything but `_load` runs on the event loop."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._reading: dict[tuple[str, str], asyncio.Task[Served | None]] = {}
        self._stale_seconds = settings.ENVIRONMENT.number("stale_seconds")

    def peek(self, tenant: str, name: str) -> Served | None:
        """From memory, where the entry is of the present generation; else None, then `find`."""
        entry = self._entries.get((tenant, name))
        if entry is None or entry.generation != GENERATIONS.number("deployments"):
            return None
        return entry.served if GENERATIONS.silent_seconds() <= self._stale_seconds else None

    async def find(self, tenant: str, name: str) -> Served:
        """The deployment; NotFound, Unavailable."""
        if not names.is_possible(name):
            raise NotFound("there is no deployment of that name")
        key = (tenant, name)
        entry = self._entries.get(key)
        if (
            entry is not None
            and entry.generation == GENERATIONS.number("deployments")
            and GENERATIONS.silent_seconds() <= self._stale_seconds
            and (entry.served is not None or monotonic() - entry.read_at < ABSENT_SECONDS)
        ):
            served = entry.served
        else:
            served = await self._read_once(key, entry)
        if served is None:
            raise NotFound(f"there is no deployment {name!r}")
        return served

    async def _read_once(self, key: tuple[str, str], old: _Entry | None) -> Served | None:
        """One look into the database for all who ask at the same time."""
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._read(*key, old))
            reading.add_done_callback(lambda done: self._read_ended(key, done))
        return await asyncio.shield(reading)

    def _read_ended(self, key: tuple[str, str], reading: asyncio.Task[Served | None]) -> None:
        del self._reading[key]
        if not reading.cancelled():
            reading.exception()  # seen, though all who asked may have gone

    async def _read(self, tenant: str, name: str, old: _Entry | None) -> Served | None:
        """From the database; from memory while it is away."""
        generation = GENERATIONS.number("deployments")
        try:
            served = await database.run(load, UUID(tenant), name)
        except (Error, Unavailable) as error:
            if old is not None and GENERATIONS.silent_seconds() <= self._stale_seconds:
                return old.served
            raise Unavailable("the database is unavailable; try again", code="database_unavailable") from error
        if len(self._entries) >= MAX_ENTRIES:
            self._make_room()
        if served is not None and old is not None and old.served is not None:
            served = _after(served, old.served)
        self._entries[(tenant, name)] = _Entry(served, generation, monotonic())
        return served

    def _make_room(self) -> None:
        """What is not there goes first: whoever asks for names by the thousand takes nothing from the others."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.served is not None}
        if len(self._entries) >= MAX_ENTRIES:
            self._entries.clear()


DEPLOYMENTS = Deployments()


def _after(served: Served, old: Served) -> Served:
    """`served` with the version before it, where the deployment was switched."""
    if old.deployment_id != served.deployment_id:
        return served
    before = old.before if old.version_id == served.version_id else replace(old, before=None)
    return replace(served, before=before)

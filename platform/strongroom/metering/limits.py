"""Which budgets a principal has, remembered by tenant: a look-up in memory for each use of a language model.

An entry holds while the generation `budgets` is the one it was read under, so that a change reaches every process
within 0.3 s and the next look. While the database is away, entries go on holding for STRONGROOM_STALE_SECONDS; what is
left of a budget then is another matter (leases.py). Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from django.conf import settings
from django.db import Error

from strongroom.access.generations import GENERATIONS, Generations
from strongroom.access.services import Principal
from strongroom.errors import Unavailable
from strongroom.metering import budgets
from strongroom.metering.budgets import GENERATION, Limit

MOST_TENANTS: Final = 20_000
Load = Callable[[UUID], list[Limit]]


class Run(Protocol):
    """Has a blocking call done in a thread: edge/database.py's `run`."""

    def __call__(self, call: Load, tenant_id: UUID, /) -> Awaitable[list[Limit]]: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    generation: int
    limits: dict[str, Limit]  # by the key's id as text; "": the tenant's


class Limits:
    """The budgets of the tenants that use language models here."""

    def __init__(self, load: Load = budgets.limits, generations: Generations = GENERATIONS) -> None:
        self._load, self._generations = load, generations
        self._stale_seconds = settings.ENVIRONMENT.number("stale_seconds")
        self._entries: dict[str, _Entry] = {}
        self._reading: dict[str, asyncio.Task[_Entry]] = {}

    def peek(self, principal: Principal) -> tuple[Limit, ...] | None:
        """From memory: the budgets of the principal and of its tenant, usually none; None where `find` must look."""
        entry = self._entries.get(principal.tenant)
        if entry is None or entry.generation != self._generations.number(GENERATION):
            return None
        return _of(principal, entry) if entry.limits else ()

    async def find(self, principal: Principal, run: Run) -> tuple[Limit, ...]:
        """Unavailable."""
        if (known := self.peek(principal)) is not None:
            return known
        reading = self._reading.get(principal.tenant)
        if reading is None:  # one look for all who ask at the same time
            reading = asyncio.create_task(self._read(principal, run))
            self._reading[principal.tenant] = reading
            reading.add_done_callback(lambda done: self._ended(principal.tenant, done))
        return _of(principal, await asyncio.shield(reading))

    def _ended(self, tenant: str, reading: asyncio.Task[_Entry]) -> None:
        del self._reading[tenant]
        if not reading.cancelled():
            reading.exception()  # seen, though all who asked may have gone

    async def _read(self, principal: Principal, run: Run) -> _Entry:
        generation = self._generations.number(GENERATION)
        try:
            found = await run(self._load, principal.tenant_id)
        except (Error, Unavailable) as error:
            old = self._entries.get(principal.tenant)
            if old is not None and self._generations.silent_seconds() <= self._stale_seconds:
                return old
            raise Unavailable("the database is unavailable; try again", code="database_unavailable") from error
        if len(self._entries) >= MOST_TENANTS:
            self._entries.clear()
        entry = self._entries[principal.tenant] = _Entry(
            generation, {"" if (id := one.key_id) is None else str(id): one for one in found}
        )
        return entry


def _of(principal: Principal, entry: _Entry) -> tuple[Limit, ...]:
    """A key's own first: it is the narrower."""
    found = entry.limits.get(principal.text), entry.limits.get("")
    return tuple([limit for limit in found if limit is not None])


LIMITS = Limits()

"""What is served, in memory: deployments with their live version, interface, limits and policy, one look-up a request.

An entry is read from the database at its first use and again at the first use after a change (the generation
`deployments`). While the database is away, entries go on serving for
STRONGROOM_STALE_SECONDS, then 503. Knows no cells: where a deployment is loaded is deployments/targets.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import Error

from inference.interface import Interface, read_interface
from inference.language.interface import LanguageInterface
from inference.signature import Signature
from strongroom.access.generations import GENERATIONS
from strongroom.deployments import services as deployments
from strongroom.edge import database
from strongroom.errors import Invalid, NotFound, Unavailable
from strongroom.tenants import names, scope

MAX_ENTRIES = 20_000
ABSENT_SECONDS = 0.1  # that a missing one is believed missing: it may be made before the generations tell of it


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment and the one live version behind it, as the hot path needs them."""

    tenant_id: UUID
    deployment_id: UUID
    name: str
    model: str
    version: int
    version_id: UUID
    interface: Interface
    policy: dict[str, Any] | None  # None where it changes nothing
    requests_per_second: float | None
    concurrency: int | None
    deadline_ms: int
    before: Served | None = None  # the version that was live before: serves while this one is being loaded
    # The ids as text, made once: so the cells know them, and a UUID's hash is Python's own and slow.
    tenant: str = field(init=False)
    deployment: str = field(init=False)
    engine_version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant", str(self.tenant_id))
        object.__setattr__(self, "deployment", str(self.deployment_id))
        object.__setattr__(self, "engine_version", str(self.version_id))

    @property
    def signature(self) -> Signature:
        """Of a model of arrays; Invalid where it is a language model."""
        if isinstance(self.interface, Signature):
            return self.interface
        raise Invalid(
            f"{self.name!r} is a language model and takes words: POST /v1/chat/completions",
            title="The model takes words, not arrays",
        )

    @property
    def language(self) -> LanguageInterface:
        """Of a language model; Invalid where it is a model of arrays."""
        if isinstance(self.interface, LanguageInterface):
            return self.interface
        raise Invalid(
            f"{self.name!r} is not a language model: POST /api/v1/deployments/{self.name}/predict",
            title="The model takes arrays, not words",
        )


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


def load(tenant_id: UUID, name: str) -> Served | None:
    """The deployment as its rows say it, None where there is none. Blocks."""
    with scope.tenant(tenant_id, write=False):
        try:
            row = deployments.resolve(name)
        except NotFound:
            return None
        traffic = row.traffic.select_related("version__model").filter(mode="live").first()
        if traffic is None:
            return None
        limits = deployments.limits(row, traffic.version.format)
        policy = deployments.POLICY | row.output_policy
        return Served(
            tenant_id=tenant_id,
            deployment_id=row.id,
            name=row.name,
            model=traffic.version.model.name,
            version=traffic.version.number,
            version_id=traffic.version_id,
            interface=read_interface(traffic.version.signature),
            policy=None if policy == deployments.POLICY else policy,
            requests_per_second=limits["requests_per_second"],
            concurrency=limits["concurrency"],
            deadline_ms=limits["deadline_ms"],
        )

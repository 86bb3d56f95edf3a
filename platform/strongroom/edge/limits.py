"""A deployment's rate and concurrency, in the memory of one process: its share of the node's limits. And places
for what holds memory or a connection for long (uploads, streams, large bodies), so that no tenant takes all of them.

Knows deployments as the snapshot has them and tenants by their ids. Everything runs on the event loop's thread.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from uuid import UUID

from strongroom.access.rates import PROCESSES, RATES, Rates
from strongroom.deployments.served import Served
from strongroom.edge import http
from strongroom.errors import LimitReached


class Limits:
    """The requests of one process to each deployment."""

    def __init__(self, processes: int, rates: Rates) -> None:
        self._processes = processes
        self._rates = rates
        self._running: dict[str, int] = {}

    def enter(self, served: Served) -> None:
        """Takes one request of the deployment's; LimitReached. `leave` follows where it succeeds."""
        if served.requests_per_second is not None:
            self._rates.take(served.deployment_id, served.requests_per_second, "the deployment's")
        running = self._running.get(served.deployment, 0)
        if served.concurrency is not None and running >= self._part(served.concurrency):
            raise LimitReached(
                f"{served.concurrency} requests of the deployment {served.name!r} run already; try again",
                code="concurrency_limited",
            )
        self._running[served.deployment] = running + 1

    def leave(self, served: Served) -> None:
        running = self._running[served.deployment] - 1
        if running:
            self._running[served.deployment] = running
        else:
            del self._running[served.deployment]

    def _part(self, concurrency: int) -> int:
        """Half as much again as an even share, since callers do not spread evenly over the processes."""
        if self._processes == 1:
            return concurrency
        return min(concurrency, math.ceil(concurrency * 1.5 / self._processes))


class Places:
    """So many at once of one process, and of one tenant."""

    def __init__(self, what: str, *, of_all: int, of_one: int) -> None:
        self._what, self._of_all, self._of_one = what, of_all, of_one
        self._taken: dict[UUID, int] = {}
        self._all = 0

    @contextmanager
    def taken(self, tenant_id: UUID) -> Iterator[None]:
        """A place, while the block runs; LimitReached."""
        self.check(tenant_id)
        self._taken[tenant_id] = self._taken.get(tenant_id, 0) + 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            if left := self._taken.pop(tenant_id) - 1:
                self._taken[tenant_id] = left

    def check(self, tenant_id: UUID) -> None:
        own = self._taken.get(tenant_id, 0) >= self._of_one
        if own or self._all >= self._of_all:
            count = self._of_one if own else self._of_all
            raise LimitReached(f"{count} {self._what} are open already; try again", code="concurrency_limited")


BODIES = Places("large bodies", of_all=256, of_one=64)


def body(request: http.Request, tenant_id: UUID, limit: int) -> Awaitable[bytes]:
    """The whole body; a large one has a place while it arrives. As Request.body, and LimitReached."""
    return _large_body(request, tenant_id, limit) if request.is_large else request.body(limit)


async def _large_body(request: http.Request, tenant_id: UUID, limit: int) -> bytes:
    with BODIES.taken(tenant_id):
        return await request.body(limit)


LIMITS = Limits(PROCESSES, RATES)

"""Rates and concurrency of predictions, in the memory of one process: its even share of the node's limits. And places
for what holds memory or a connection for long (uploads, streams, large bodies), so that no tenant takes all of them.

Knows tenants and deployments as ids only. Everything runs on the event loop's thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from uuid import UUID

from django.conf import settings

from strongroom.edge import http
from strongroom.edge.snapshot import Served
from strongroom.errors import LimitReached

MAX_BUCKETS = 50_000


class Bucket:
    """A token bucket: `rate` requests a second, a second's worth (at least one) at once."""

    __slots__ = ("_at", "_left")

    def __init__(self, rate: float) -> None:
        self._left = max(1.0, rate)
        self._at = monotonic()

    def take(self, rate: float) -> float:
        """0.0 and one request taken, or the seconds until there is one."""
        now = monotonic()
        self._left = min(max(1.0, rate), self._left + (now - self._at) * rate)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / rate if rate > 0 else math.inf


class Limits:
    """The buckets and the requests in flight of one process."""

    def __init__(self, processes: int) -> None:
        self._share = 1.0 / processes
        self._processes = processes
        self._buckets: dict[UUID, Bucket] = {}
        self._running: dict[UUID, int] = {}

    def enter(self, served: Served) -> None:
        """Takes one request of the tenant's and the deployment's; LimitReached. `leave` follows where it succeeds."""
        if served.tenant_requests_per_second is not None:
            self._rate(served.tenant_id, served.tenant_requests_per_second, "the tenant's limit")
        if served.requests_per_second is not None:
            self._rate(served.deployment_id, served.requests_per_second, "the deployment's limit")
        running = self._running.get(served.deployment_id, 0)
        if served.concurrency is not None and running >= self._part(served.concurrency):
            raise LimitReached(
                f"{served.concurrency} requests of the deployment {served.name!r} run already; try again",
                code="concurrency_limited",
            )
        self._running[served.deployment_id] = running + 1

    def leave(self, served: Served) -> None:
        running = self._running[served.deployment_id] - 1
        if running:
            self._running[served.deployment_id] = running
        else:
            del self._running[served.deployment_id]

    def _part(self, concurrency: int) -> int:
        """Half as much again as an even share, since callers do not spread evenly over the processes."""
        if self._processes == 1:
            return concurrency
        return min(concurrency, math.ceil(concurrency * 1.5 / self._processes))

    def _rate(self, id: UUID, rate: float, whose: str) -> None:
        bucket = self._buckets.get(id)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.clear()
            bucket = self._buckets[id] = Bucket(rate * self._share)
        if wait := bucket.take(rate * self._share):
            raise LimitReached(
                f"{whose} of {rate:g} requests a second is reached; try again",
                code="rate_limited",
                retry_after_seconds=1 if wait == math.inf else max(1, math.ceil(wait)),
            )


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


async def body(request: http.Request, tenant_id: UUID, limit: int) -> bytes:
    """The whole body; a large one has a place while it arrives. As Request.body, and LimitReached."""
    if not request.is_large:
        return await request.body(limit)
    with BODIES.taken(tenant_id):
        return await request.body(limit)


LIMITS = Limits(max(1, settings.ENVIRONMENT.number("web_processes")))

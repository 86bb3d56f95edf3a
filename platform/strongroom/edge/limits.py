"""Rates and concurrency of predictions, in the memory of one process: its even share of the node's limits.

Knows tenants and deployments as ids only. Everything runs on the event loop's thread.
"""

from __future__ import annotations

import math
from time import monotonic
from uuid import UUID

from django.conf import settings

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


LIMITS = Limits(max(1, settings.ENVIRONMENT.number("web_processes")))

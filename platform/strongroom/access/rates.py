"""Requests a second, in the memory of one process: its even share of what a node allows a tenant or a deployment.

Knows only ids. The event loop and the threads of Django's requests take from the same buckets.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from django.conf import settings

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

    def give_back(self) -> None:
        self._left += 1.0  # the next look takes off what is over

    def left(self, rate: float) -> float:
        return min(max(1.0, rate), self._left + (monotonic() - self._at) * rate)


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests that may come at once, how many of them now, and the seconds until all may again."""

    limit: int
    remaining: int
    seconds: float


class Rates:
    """The buckets of one process of so many that share a node's limits."""

    def __init__(self, processes: int) -> None:
        self._share = 1.0 / processes
        self._buckets: dict[UUID, Bucket] = {}
        self._lock = threading.Lock()

    def remaining(self, id: UUID, rate: float) -> Rate:
        """What this process would let through now, taken for all of them."""
        with self._lock:
            bucket = self._buckets.get(id)
        most = max(1.0, rate * self._share)
        left = most if bucket is None else bucket.left(rate * self._share)
        seconds = (most - left) / (rate * self._share) if rate > 0 else math.inf
        return Rate(int(most / self._share), int(left / self._share), seconds)

    def give_back(self, id: UUID) -> None:
        """One request that was taken and not made."""
        with self._lock:
            if (bucket := self._buckets.get(id)) is not None:
                bucket.give_back()

    def take(self, id: UUID, rate: float, whose: str) -> None:
        """One request; LimitReached rate_limited with the time to come again."""
        with self._lock:
            bucket = self._buckets.get(id)
            if bucket is None:
                if len(self._buckets) >= MAX_BUCKETS:
                    self._buckets.clear()
                bucket = self._buckets[id] = Bucket(rate * self._share)
            wait = bucket.take(rate * self._share)
        if wait:
            raise LimitReached(
                f"{whose} limit of {rate:g} requests a second is reached; try again",
                code="rate_limited",
                retry_after_seconds=1 if wait == math.inf else max(1, math.ceil(wait)),
            )


PROCESSES = max(1, settings.ENVIRONMENT.number("web_processes"))
RATES = Rates(PROCESSES)

"""Reserving from budgets before the work, and settling after it: in the memory of one process, out of its leases.

    reservation = await LEASES.reserve(limits, tokens, run)     before: StrongroomError, or set aside in every budget
    reservation.settle(used)                                    after, once: the difference is free again

A lease that has enough spare costs no look into the database; else one is ordered by `run`, in a thread. What is spare
and was not needed for a while goes back with the next flush, which tells what was used and renews the rest (`cut`,
`send`: as the Meter's). A lease is used for no longer than the database keeps it for certain: 30 s after the last
answer began, or to the end of its window; others may settle it then. Everything but `send` runs on one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Final, Protocol
from uuid import UUID

from django.db import Error

from strongroom import ids
from strongroom.errors import FieldError, LimitReached, StrongroomError, Unavailable
from strongroom.metering import budgets
from strongroom.metering.budgets import Limit
from strongroom.metering.ledger import LEASE, PART, Order, Told
from strongroom.rest.bodies import moment

RENEW_SECONDS: Final = 10.0
EXHAUSTED_SECONDS: Final = 1.0
MOST_EXHAUSTED: Final = 10_000
Report = Callable[[Sequence[Order]], list[Told]]


class Run(Protocol):
    """Has a blocking call done in a thread: edge/database.py's `run`."""

    def __call__(self, call: Report, orders: Sequence[Order], /) -> Awaitable[list[Told]]: ...


class Lease:
    """What this process has of one budget. `granted` is never more than the database has written down."""

    __slots__ = (
        "_is_dirty", "_is_short", "_left", "_renewed_at", "_serial", "_told_used", "_until", "_window", "_window_ends",
        "granted", "held", "id", "limit", "lock", "used", "was_touched",
    )  # fmt: skip

    def __init__(self, limit: Limit) -> None:
        self.id, self.limit = ids.new(), limit
        self.granted = self.used = self.held = 0
        self.lock = asyncio.Lock()  # one order for tokens at a time
        self._serial = self._told_used = 0
        self._window: datetime | None = None
        self._is_short = self.was_touched = False
        self._is_dirty = False  # an order is under way, or its answer was not heard
        self._until = self._renewed_at = float("-inf")
        self._left = 0  # of the whole budget when this process last heard of it
        self._window_ends: float | None = None

    @property
    def remaining(self) -> int:
        """Of the whole budget, as far as this process knows."""
        return max(0, self._left - (self.used - self._told_used))

    def window_seconds(self, now: float) -> float | None:
        """Until another window begins; None where there is one only."""
        return None if self._window_ends is None else max(0.0, self._window_ends - now)

    @property
    def spare(self) -> int:
        return max(0, self.granted - self.used - self.held)

    def has(self, limit: Limit, tokens: int, now: float) -> bool:
        return self.limit == limit and now < self._until and self.spare >= tokens

    def take(self, tokens: int) -> None:
        self.held += tokens
        self.was_touched = True

    def give_back(self, tokens: int, used: int) -> None:
        """What was taken; of it so much was used, or more where a cell did not keep to what it was asked."""
        self.held -= tokens
        self.used += used

    def order(self, limit: Limit, *, spare: int, need: int = 0) -> Order:
        """What is not kept any more is not this process's from now on, heard or not."""
        kept = self.held + spare
        self.limit, self.granted, self._serial, self._is_dirty = limit, self.used + kept, self._serial + 1, True
        return Order(limit.tenant_id, limit.id, self.id, self._serial, self._window, self.used, kept, need)

    def report(self, now: float) -> Order | None:
        """Where there is something to tell, to give back or to renew."""
        is_wanted = self.was_touched and not self._is_short
        spare = min(self.spare, self.limit.tokens // PART) if is_wanted else 0
        self.was_touched = False
        is_due = now - self._renewed_at > RENEW_SECONDS and self.granted > self.used
        if self._is_dirty or is_due or self.used != self._told_used or spare < self.spare:
            return self.order(self.limit, spare=spare)
        return None

    def hear(self, order: Order, told: Told, asked_at: float) -> bool:
        """Whether the lease goes on."""
        if order.serial != self._serial:
            return True
        self._is_dirty = False
        if told.outcome != "held" or order.kept + told.extra == 0:
            return False
        self._window, self._is_short, self._told_used = told.window, told.is_short, order.used
        self._left = told.tokens - told.spent
        self._window_ends = None if told.window_seconds is None else asked_at + told.window_seconds
        self.granted += told.extra
        self._renewed_at = asked_at
        seconds = LEASE.total_seconds()
        self._until = asked_at + (seconds if told.window_seconds is None else min(seconds, told.window_seconds))
        return True


class Reservation:
    """Tokens set aside, in every budget that applies, for one use of a language model."""

    __slots__ = ("leases", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.leases: list[Lease] = []

    def settle(self, used: int | None) -> None:
        """None where nobody knows: then all of it counts. A second time changes nothing."""
        leases, self.leases = self.leases, []
        for lease in leases:
            lease.give_back(self.tokens, self.tokens if used is None else used)


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a budget, as far as one process knows; `seconds` until all of it is there again, None: never."""

    tokens: int
    remaining: int
    seconds: float | None


class Leases:
    """Those of one process, by budget."""

    def __init__(self, report: Report = budgets.report, clock: Callable[[], float] = monotonic) -> None:
        self._report, self._clock = report, clock
        self._leases: dict[UUID, Lease] = {}
        self._exhausted: dict[UUID, _Exhausted] = {}
        self._asking: set[asyncio.Future[Lease | None]] = set()
        self._cut: list[tuple[Lease, Order, float]] = []  # to be sent
        self._heard: deque[tuple[Lease, Order, Told, float]] = deque()  # by the sending thread
        self._sending = threading.Lock()

    async def reserve(self, limits: Sequence[Limit], tokens: int, run: Run) -> Reservation:
        """Budget exhausted (402), LimitReached where others hold the rest just now, Unavailable."""
        reservation = Reservation(tokens)
        try:
            for limit in limits:
                if (lease := await self._with(limit, tokens, run)) is not None:
                    reservation.leases.append(lease)
        except BaseException:
            reservation.settle(0)
            raise
        return reservation

    def narrowest(self, limits: Sequence[Limit]) -> Remaining | None:
        """Of those budgets that this process has a lease of, the one with the least left."""
        leases = [lease for limit in limits if (lease := self._leases.get(limit.id)) is not None]
        if not leases:
            return None
        lease = min(leases, key=lambda one: one.remaining)
        return Remaining(lease.limit.tokens, lease.remaining, lease.window_seconds(self._clock()))

    def cut(self) -> bool:
        """On the loop: what there is to tell the database becomes the next sending; whether there is anything, or will
        be by the next cut: at a process's end, cuts until there is nothing give back all that it does not need."""
        while self._heard:
            self._hear(*self._heard.popleft())
        now = self._clock()
        free = [lease for lease in self._leases.values() if not lease.lock.locked()]
        is_busy = any(lease.was_touched for lease in free)
        self._cut = [(lease, order, now) for lease in free if (order := lease.report(now)) is not None]
        return bool(self._cut) or is_busy

    def send(self) -> None:
        """What `cut` found, on any thread. DatabaseError leaves it to the next `cut`."""
        with self._sending:
            cut, self._cut = sorted(self._cut, key=lambda one: one[1].tenant), []
            for _, group in itertools.groupby(cut, key=lambda one: one[1].tenant):
                sent = list(group)
                told = self._report([order for _, order, _ in sent])
                for (lease, order, asked_at), answer in zip(sent, told, strict=True):
                    self._heard.append((lease, order, answer, asked_at))

    async def _with(self, limit: Limit, tokens: int, run: Run) -> Lease | None:
        """The lease that the tokens were taken from; None where the budget has just been removed."""
        lease = self._leases.get(limit.id)
        if lease is not None and lease.has(limit, tokens, self._clock()):
            lease.take(tokens)
            return lease
        self._check(limit, tokens)
        asking = asyncio.ensure_future(self._ask(limit, tokens, run))
        self._asking.add(asking)
        asking.add_done_callback(self._asked)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:  # the order is under way: it hears its answer, and gives back what it got
            asking.add_done_callback(lambda done: _give_back(done, tokens))
            raise

    def _asked(self, asking: asyncio.Future[Lease | None]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # seen, though nobody may wait for it any more

    async def _ask(self, limit: Limit, tokens: int, run: Run) -> Lease | None:
        """As `_with`, from the database where nobody else has the lease hold enough meanwhile."""
        while True:
            if (lease := self._leases.get(limit.id)) is None:
                lease = self._leases[limit.id] = Lease(limit)
            async with lease.lock:
                if self._leases.get(limit.id) is not lease:
                    continue
                if not lease.has(limit, tokens, self._clock()):
                    if not await self._order(lease, limit, tokens, run):
                        return None
                    if not lease.has(limit, tokens, self._clock()):
                        continue  # it was lost, its window has ended, or others took from it
                lease.take(tokens)
                return lease

    async def _order(self, lease: Lease, limit: Limit, tokens: int, run: Run) -> bool:
        """False where there is no such budget; what is refused, raises."""
        spare, now = lease.spare if lease.limit == limit else 0, self._clock()
        order = lease.order(limit, spare=spare, need=max(0, tokens - spare))
        try:
            (told,) = await run(self._report, [order])
        except Error:
            detail = "the budget cannot be asked: the database is unavailable; try again"
            raise Unavailable(detail, code="database_unavailable") from None
        self._hear(lease, order, told, now)
        if told.outcome == "held" and told.extra < order.need:
            if tokens > told.tokens - told.spent:
                self._remember(limit, tokens, told, now)
                raise _exhausted(limit, tokens, told)
            raise _reserved(limit, tokens, told)
        return told.outcome != "gone"

    def _check(self, limit: Limit, tokens: int) -> None:
        """Who asks again and again for what is not there costs no look into the database each time."""
        if (known := self._exhausted.get(limit.id)) is None:
            return
        if known.limit == limit and known.tokens <= tokens and self._clock() < known.until:
            raise _exhausted(limit, tokens, known.told)

    def _remember(self, limit: Limit, tokens: int, told: Told, now: float) -> None:
        if len(self._exhausted) >= MOST_EXHAUSTED:
            self._exhausted.clear()
        seconds = min(EXHAUSTED_SECONDS, told.window_seconds or EXHAUSTED_SECONDS)
        self._exhausted[limit.id] = _Exhausted(limit, tokens, told, now + seconds)

    def _hear(self, lease: Lease, order: Order, told: Told, asked_at: float) -> None:
        if not lease.hear(order, told, asked_at) and self._leases.get(order.budget) is lease:
            del self._leases[order.budget]


def _give_back(asking: asyncio.Future[Lease | None], tokens: int) -> None:
    if not asking.cancelled() and asking.exception() is None and (lease := asking.result()) is not None:
        lease.give_back(tokens, 0)


@dataclass(frozen=True, slots=True)
class _Exhausted:
    limit: Limit
    tokens: int
    told: Told
    until: float


def _exhausted(limit: Limit, tokens: int, told: Told) -> StrongroomError:
    ends = "" if told.window_end is None else f"; the next window begins at {moment(told.window_end)}"
    detail = f"{_whose(limit, told)} has not enough left: {told.spent} are spent, {tokens} needed{ends}"
    hint = f"ask for fewer tokens (max_tokens), or PUT /api/v1/budgets/{limit.subject}"
    problem = FieldError("", "budget_exhausted", detail, hint)
    return StrongroomError(detail, code="budget_exhausted", errors=[problem])


def _reserved(limit: Limit, tokens: int, told: Told) -> LimitReached:
    return LimitReached(
        f"{_whose(limit, told)} has too little free just now: {told.spent} are spent, {told.reserved} reserved by "
        f"requests that run, {tokens} needed; what these do not use comes back, try again",
        retry_after_seconds=1,
    )


def _whose(limit: Limit, told: Told) -> str:
    whose = "the tenant's" if limit.key_id is None else "this key's"
    return f"{whose} budget of {told.tokens} tokens" + (f" a {limit.period}" if limit.period else "")


LEASES = Leases()

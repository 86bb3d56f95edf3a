"""The arithmetic of one budget: its windows, and what a process may have of it. Pure: no database, no clock.

A process takes tokens by the lease, reserves out of its lease in memory and says now and then what became of them:

    tokens  ≥  spent + the leases' granted      at each grant, so that nobody's death can over-spend it
    granted =  used + reserved + spare          of a lease; of one that nobody renews all of it counts as spent

All that a process says is absolute, and numbered: an order that is heard twice, late or never does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

Period = Literal["day", "month"]
PERIODS: Final[tuple[Period, ...]] = ("day", "month")

LEASE: Final = timedelta(seconds=30)
PART: Final = 100  # a lease gets a hundredth of the budget at least, so that few requests ask,
LAST_PART: Final = 8  # but of that no more than an eighth of what is left: the end is shared out finely


def begins(period: str | None, now: datetime, since: datetime) -> datetime:
    """When the window of `now` began, in UTC; without a period there is one, `since` the budget was set."""
    if period is None:
        return since
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if period == "day" else midnight.replace(day=1)


def ends(period: str | None, start: datetime) -> datetime | None:
    """When the window that began at `start` ends."""
    if period is None:
        return None
    if period == "day":
        return start + timedelta(days=1)
    return (start + timedelta(days=31)).replace(day=1)


@dataclass(frozen=True, slots=True)
class Order:
    """What a process says of its lease, and how many tokens more it needs."""

    tenant: UUID
    budget: UUID
    lease: UUID
    serial: int  # of its orders; one that comes after a later one is void
    window: datetime | None  # in which it was granted; None: the process has not heard yet that the lease is there
    used: int  # all that was ever used of it
    kept: int  # what the process holds on to: reserved and spare
    need: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """The answer. `extra` is 0 where what is needed is not there: then `spent` and `reserved` say why."""

    outcome: Literal["held", "lost", "gone"]  # lost: settled by others, or of a window that is over; gone: the budget
    window: datetime | None = None
    extra: int = 0
    spent: int = 0
    reserved: int = 0
    tokens: int = 0
    is_short: bool = False  # little is left: spare tokens are wanted by others
    window_end: datetime | None = None
    window_seconds: float | None = None  # until then


LOST, GONE = Told("lost"), Told("gone")


@dataclass(slots=True)
class Share:
    """What one lease has."""

    granted: int
    used: int
    serial: int
    expires_at: datetime


@dataclass(slots=True)
class Account:
    """One window of one budget."""

    tokens: int
    window: datetime  # when it began
    spent: int = 0  # by leases that have ended
    shares: dict[UUID, Share] = field(default_factory=dict)

    def settle(self, now: datetime, but: UUID | None = None) -> None:
        """Leases that nobody renewed end, and with them all that they had; `but` is the one that comes to renew."""
        for lease, share in list(self.shares.items()):
            if share.expires_at < now and lease != but:
                self.spent += share.granted
                del self.shares[lease]

    def take(self, order: Order, now: datetime) -> Told:
        """Writes down what the order says and grants what it needs, all or nothing."""
        own = self.shares.get(order.lease)
        was_here = order.window is not None
        is_late = own is not None and own.serial >= order.serial
        if is_late or (was_here and (own is None or order.window != self.window)):
            return LOST
        kept = order.used + order.kept
        others = sum(share.granted for lease, share in self.shares.items() if lease != order.lease)
        room = self.tokens - self.spent - others - kept
        extra = max(order.need, min(self.tokens // PART, room // LAST_PART)) if 0 < order.need <= room else 0
        self.shares[order.lease] = Share(kept + extra, order.used, order.serial, now + LEASE)
        told = Told(
            "held",
            self.window,
            extra,
            spent=self.spent_so_far,
            reserved=self.reserved,
            tokens=self.tokens,
            is_short=room - extra < self.tokens // PART,
        )
        if order.kept + extra == 0:  # it holds nothing any more
            del self.shares[order.lease]
            self.spent += order.used
        return told

    @property
    def spent_so_far(self) -> int:
        """With what the leases have told of their use."""
        return self.spent + sum(share.used for share in self.shares.values())

    @property
    def reserved(self) -> int:
        """What is set aside: it will be spent or come back."""
        return sum(share.granted - share.used for share in self.shares.values())

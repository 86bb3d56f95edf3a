"""Reserving and settling in one process: when the database is asked, what is refused and how, what comes back when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from strongroom.errors import StrongroomError
from strongroom.metering.budgets import Limit
from strongroom.metering.leases import Leases, Reservation
from strongroom.metering.ledger import GONE, Order, Told
from tests.metering.world import Memory


class One:
    """A process, its database, and how often it asked."""

    def __init__(self, tokens: int = 100_000, period: str | None = None) -> None:
        self.database = Memory(tokens, period)
        self.clock = 0.0
        self.asked = 0
        self.is_away = False
        self.leases = self.process()

    def process(self) -> Leases:
        return Leases(self.report, lambda: self.clock)

    def report(self, orders: Sequence[Order]) -> list[Told]:
        if self.is_away:
            raise OperationalError
        return self.database.report(orders)

    async def run(self, call: Callable[[Sequence[Order]], list[Told]], orders: Sequence[Order]) -> list[Told]:
        self.asked += 1
        return call(orders)

    def reserve(self, tokens: int, *limits: Limit, leases: Leases | None = None) -> Reservation:
        given = limits or (self.database.limit,)
        return asyncio.run((leases or self.leases).reserve(given, tokens, self.run))

    def refused(self, tokens: int, *limits: Limit, leases: Leases | None = None) -> StrongroomError:
        with pytest.raises(StrongroomError) as caught:
            self.reserve(tokens, *limits, leases=leases)
        return caught.value

    def flush(self) -> bool:
        has_any = self.leases.cut()
        self.leases.send()
        return has_any

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds
        self.database.pass_time(seconds)


@pytest.fixture
def one() -> One:
    return One()


def test_a_lease_serves_many_requests_for_one_look_into_the_database(one: One) -> None:
    for _ in range(30):
        one.reserve(70).settle(50)
    assert one.asked <= 2
    while one.flush():
        pass
    assert (one.database.spent, one.database.reserved) == (1500, 0)


def test_what_is_reserved_stands_until_it_is_settled(one: One) -> None:
    reservation = one.reserve(70_000)
    assert one.refused(31_000).code == "limit_reached"
    one.flush()
    assert one.refused(31_000).code == "limit_reached"
    reservation.settle(10)
    one.reserve(70_000)


def test_what_nobody_needs_goes_back_with_the_second_flush(one: One) -> None:
    one.reserve(70).settle(20)
    assert one.flush(), "what was used is told"
    assert one.database.reserved == 980
    assert one.flush()
    assert (one.database.spent, one.database.reserved) == (20, 0)
    assert not one.flush()


def test_a_lease_keeps_no_more_than_a_hundredth_over_what_is_reserved(one: One) -> None:
    large, small = one.reserve(40_000), one.reserve(70)
    large.settle(100)
    one.flush()
    assert one.database.reserved == 1000 + 70
    small.settle(70)


def test_a_use_that_nobody_knows_counts_in_full(one: One) -> None:
    one.reserve(900).settle(None)
    while one.flush():
        pass
    assert one.database.spent == 900


def test_an_exhausted_budget_says_the_numbers_and_when_it_is_renewed() -> None:
    one = One(1000, "day")
    one.reserve(990).settle(990)
    error = one.refused(70)
    assert (error.status, error.code) == (402, "budget_exhausted")
    for part in ("1000 tokens a day", "990 are spent", "70 needed", "2026-11-30T00:00:00.000Z"):
        assert part in error.detail
    assert error.errors[0].hint is not None
    assert "PUT /api/v1/budgets/tenant" in error.errors[0].hint
    assert one.reserve(10)


def test_a_budget_that_others_hold_just_now_asks_to_come_again(one: One) -> None:
    one.reserve(99_950)
    error = one.refused(70, leases=one.process())
    assert (error.status, error.code, error.retry_after_seconds) == (429, "limit_reached", 1)


def test_asking_again_for_what_is_not_there_costs_one_look_a_second() -> None:
    one = One(1000)
    one.reserve(1000).settle(1000)
    for _ in range(50):
        one.refused(70)
    assert one.asked == 2
    one.pass_time(1.5)
    one.refused(70)
    assert one.asked == 3
    one.database.change(5000)
    one.reserve(70)


def test_both_budgets_must_hold_and_a_refusal_of_one_leaves_the_other_untouched(one: One) -> None:
    narrow = One(50)
    both = {one.database.limit.id: one.database, narrow.database.limit.id: narrow.database}

    def report(orders: Sequence[Order]) -> list[Told]:
        return [both[order.budget].report([order])[0] for order in orders]

    leases = Leases(report, lambda: 0.0)
    limits = (one.database.limit, narrow.database.limit)
    assert one.refused(70, *limits, leases=leases).code == "budget_exhausted"
    asyncio.run(leases.reserve(limits, 50, one.run)).settle(30)
    while leases.cut():
        leases.send()
    assert (one.database.spent, one.database.reserved) == (30, 0)
    assert (narrow.database.spent, narrow.database.reserved) == (30, 0)


def test_without_the_database_the_lease_at_hand_suffices_for_half_a_minute(one: One) -> None:
    one.reserve(70).settle(70)
    one.is_away = True
    for _ in range(3):
        one.reserve(70).settle(70)
        one.pass_time(9)
        with pytest.raises(OperationalError):
            one.flush()
    assert one.refused(5000).code == "database_unavailable"
    one.pass_time(4)
    assert one.refused(70).code == "database_unavailable", "others may have settled the lease by now"
    one.is_away = False
    one.reserve(70).settle(70)
    while one.flush():
        pass
    assert (one.database.spent, one.database.reserved) == (350, 0)


def test_a_process_whose_lease_others_settled_gets_nothing_back(one: One) -> None:
    reservation = one.reserve(70)
    one.pass_time(31)
    other = one.process()
    one.reserve(1, leases=other)
    assert one.database.account.spent == 1000
    reservation.settle(10)
    one.flush()
    assert one.database.account.spent == 1000
    one.reserve(70).settle(70)
    while one.flush():
        pass
    assert one.database.account.spent == 1070


def test_a_lease_ends_with_its_window() -> None:
    one = One(100_000, "day")
    late = one.reserve(70)
    one.pass_time(119.5)
    one.reserve(70)
    assert one.asked == 2
    one.pass_time(1)
    one.reserve(70).settle(70)
    assert one.asked == 4, "the old one, which it held to be there, and a new one"
    late.settle(70)  # of the window in which it was reserved
    while one.flush():
        pass
    assert (one.database.spent, one.database.reserved) == (70, 0)


def test_another_number_is_asked_for_before_anything_spare_is_used(one: One) -> None:
    one.reserve(70).settle(70)
    one.database.change(50)
    assert one.refused(70).code == "budget_exhausted"
    assert one.database.reserved == 0


def test_a_budget_that_was_removed_holds_nobody_up(one: One) -> None:
    async def run(call: Any, orders: Sequence[Order]) -> list[Told]:
        return [GONE for _ in orders]

    asyncio.run(one.leases.reserve([one.database.limit], 70, run)).settle(70)
    assert not one.leases.cut()


def test_many_at_once_ask_one_after_the_other_and_all_get_theirs(one: One) -> None:
    async def all_of_them() -> list[Reservation]:
        return await asyncio.gather(
            *(one.leases.reserve([one.database.limit], 70 + number, one.run) for number in range(50))
        )

    for reservation in asyncio.run(all_of_them()):
        reservation.settle(1)
    assert one.asked <= 6
    while one.flush():
        pass
    assert (one.database.spent, one.database.reserved) == (50, 0)


def test_a_caller_that_leaves_while_it_asks_leaves_nothing_reserved(one: One) -> None:
    async def leave() -> None:
        answer = asyncio.Event()

        async def run(call: Any, orders: Sequence[Order]) -> list[Told]:
            await answer.wait()
            return one.report(orders)

        asking = asyncio.create_task(one.leases.reserve([one.database.limit], 5000, run))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        answer.set()
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert one.database.reserved == 5000
    while one.flush():
        pass
    assert (one.database.spent, one.database.reserved) == (0, 0)


def test_a_flush_that_failed_is_told_again(one: One) -> None:
    one.reserve(70).settle(0)
    one.flush()
    one.is_away = True
    for _ in range(3):
        with pytest.raises(OperationalError):
            one.flush()
    one.is_away = False
    assert one.flush()
    assert (one.database.spent, one.database.reserved) == (0, 0)


def test_a_lease_in_use_is_renewed_while_nothing_is_used(one: One) -> None:
    reservation = one.reserve(70)
    for _ in range(60):
        one.pass_time(2)
        one.flush()
    assert one.database.account.shares.popitem()[1].expires_at > one.database.now + timedelta(seconds=15)
    reservation.settle(70)

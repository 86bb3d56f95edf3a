"""A budget's arithmetic: windows of UTC, and grants that are all or nothing and finer towards the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import ids
from strongroom.metering.ledger import LEASE, LOST, PERIODS, Account, Order, Share, begins, ends

NOW = datetime(2026, 11, 29, 10, 30, tzinfo=UTC)
BUDGET = ids.new()
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


def order(lease: UUID, serial: int = 1, *, used: int = 0, kept: int = 0, need: int = 0) -> Order:
    return Order(BUDGET, BUDGET, lease, serial, None if serial == 1 else NOW, used, kept, need)


@given(now=moments, period=st.sampled_from(PERIODS))
def test_each_moment_is_in_one_window(now: datetime, period: str) -> None:
    start = begins(period, now, now)
    end = ends(period, start)
    assert end is not None
    assert start <= now < end
    assert begins(period, end, now) == end
    assert begins(period, end - timedelta(microseconds=1), now) == start


def test_windows_are_of_utc_wherever_the_clock_hangs() -> None:
    late = datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    assert begins("day", late, late) == datetime(2026, 11, 30, tzinfo=UTC)
    assert begins("month", late, late) == datetime(2026, 11, 1, tzinfo=UTC)
    assert ends("month", datetime(2026, 12, 1, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)


def test_without_a_period_there_is_one_window_without_an_end() -> None:
    assert begins(None, NOW + timedelta(days=900), NOW) == NOW
    assert ends(None, NOW) is None


def test_a_lease_gets_a_hundredth_more_than_is_needed_so_that_the_next_requests_ask_nobody() -> None:
    account = Account(100_000, NOW)
    assert account.take(order(ids.new(), need=70), NOW).extra == 1000
    assert account.take(order(ids.new(), need=5000), NOW).extra == 5000


def test_the_end_of_a_budget_is_shared_out_finely() -> None:
    account = Account(100_000, NOW, 99_200)
    assert account.take(order(ids.new(), need=70), NOW).extra == 100
    account = Account(100_000, NOW, 99_930)
    assert account.take(order(ids.new(), need=70), NOW).extra == 70


@pytest.mark.parametrize("left", [0, 69])
def test_what_is_not_there_is_not_granted_in_part(left: int) -> None:
    account = Account(1000, NOW, 1000 - left)
    told = account.take(order(ids.new(), need=70), NOW)
    assert (told.outcome, told.extra, told.spent) == ("held", 0, 1000 - left)
    assert account.shares == {}


def test_what_a_lease_does_not_keep_is_free_at_once() -> None:
    lease, account = ids.new(), Account(1000, NOW)
    extra = account.take(order(lease, need=900), NOW).extra
    assert account.take(order(ids.new(), need=200), NOW).extra == 0
    account.take(order(lease, 2, used=100, kept=0), NOW)
    assert (extra, account.spent, account.shares) == (900, 100, {})
    assert account.take(order(ids.new(), need=900), NOW).extra == 900


def test_what_a_lease_has_is_no_hindrance_to_its_own_next_order() -> None:
    lease, account = ids.new(), Account(1000, NOW)
    account.take(order(lease, need=600), NOW)
    assert account.take(order(lease, 2, used=600, need=400), NOW).extra == 400


def test_an_order_that_comes_after_a_later_one_is_void() -> None:
    lease, account = ids.new(), Account(1000, NOW)
    account.take(order(lease, 1, need=100), NOW)
    account.take(order(lease, 3, used=50, kept=50), NOW)
    before = dict(account.shares)
    assert account.take(order(lease, 2, kept=100, need=100), NOW) == LOST
    assert account.shares == before


def test_a_lease_that_nobody_renewed_is_spent_to_the_last_token() -> None:
    dead, alive, account = ids.new(), ids.new(), Account(1000, NOW)
    account.take(order(dead, need=400), NOW)
    account.take(order(alive, need=100), NOW + LEASE)
    account.settle(NOW + LEASE)
    assert (account.spent, account.reserved) == (0, 500)
    account.settle(NOW + LEASE + timedelta(seconds=1))
    assert (account.spent, account.reserved) == (400, 100)
    assert account.take(order(dead, 2, used=10, kept=0), NOW) == LOST, "it comes back and gets nothing back"
    assert account.spent == 400


def test_who_comes_late_to_renew_keeps_its_lease_where_nobody_settled_it() -> None:
    lease, account = ids.new(), Account(1000, NOW)
    account.take(order(lease, need=400), NOW)
    later = NOW + 2 * LEASE
    account.settle(later, but=lease)
    assert account.take(order(lease, 2, used=100, kept=300), later).outcome == "held"
    assert account.shares[lease] == Share(400, 100, 2, later + LEASE)


def test_a_lease_of_a_window_that_is_over_gets_nothing_of_the_next() -> None:
    lease, account = ids.new(), Account(1000, NOW)
    account.take(order(lease, need=400), NOW)
    later = Account(1000, NOW + timedelta(days=1))
    assert later.take(order(lease, 2, used=100, kept=300), NOW) == LOST
    later.take(order(lease, 1, need=10), NOW)  # its first order, which comes through late
    assert later.take(order(lease, 2, used=100, kept=300), NOW) == LOST


def test_a_budget_that_was_lowered_grants_nothing_until_it_is_under_it() -> None:
    lease, account = ids.new(), Account(1000, NOW)
    account.take(order(lease, need=800), NOW)
    account.tokens = 500
    told = account.take(order(lease, 2, used=300, kept=500, need=1), NOW)
    assert (told.extra, told.is_short) == (0, True)
    account.take(order(lease, 3, used=300, kept=0), NOW)
    assert account.take(order(ids.new(), need=200), NOW).extra == 200

"""Budgets in the database: orders of processes at once, windows, other numbers, removal; the same on both databases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.db.models import F
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from strongroom import ids
from strongroom.access.generations import Generations
from strongroom.access.models import Generation
from strongroom.audit.models import Entry
from strongroom.errors import StrongroomError
from strongroom.metering import budgets
from strongroom.metering.budgets import Limit
from strongroom.metering.leases import Leases, Reservation
from strongroom.metering.ledger import GONE, Order, Told
from strongroom.metering.limits import Limits
from strongroom.metering.models import Budget, Lease
from strongroom.tenants import scope
from strongroom.tenants.services import create_tenant
from tests.callers import SYSTEM, Deposit
from tests.depth import examples
from tests.metering.world import Processes

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def tenant_id() -> UUID:
    return create_tenant("metered", "owner@metered.test").tenant.id


def put(tenant_id: UUID, tokens: int, period: str | None = None, key_id: UUID | None = None) -> Limit:
    with scope.tenant(tenant_id):
        budgets.put(SYSTEM, key_id, tokens=tokens, period=period)
    return next(limit for limit in budgets.limits(tenant_id) if limit.key_id == key_id)


def shown(limit: Limit) -> dict[str, Any]:
    with scope.tenant(limit.tenant_id, write=False):
        return budgets.document(budgets.find(limit.key_id))


def numbers(limit: Limit) -> tuple[int, int, int]:
    document = shown(limit)
    return document["spent"], document["reserved"], document["remaining"]


def order(limit: Limit, lease: UUID, serial: int = 1, window: datetime | None = None, **rest: int) -> Order:
    return Order(limit.tenant_id, limit.id, lease, serial, window, **({"used": 0, "kept": 0} | rest))


def age(limit: Limit, **passed: float) -> None:
    """As if so much time had passed."""
    delta = timedelta(**passed)
    with scope.tenant(limit.tenant_id):
        Budget.objects.filter(id=limit.id).update(window_start=F("window_start") - delta)
        Lease.objects.filter(budget=limit.id).update(expires_at=F("expires_at") - delta)


def test_orders_are_written_down_and_shown(tenant_id: UUID) -> None:
    limit, lease = put(tenant_id, 10_000), ids.new()
    (told,) = budgets.report([order(limit, lease, need=70)])
    assert told.extra == 100
    assert numbers(limit) == (0, 100, 9900)
    budgets.report([order(limit, lease, 2, told.window, used=50, kept=30)])
    assert numbers(limit) == (50, 30, 9920)
    budgets.report([order(limit, lease, 3, told.window, used=80)])
    assert numbers(limit) == (80, 0, 9920)
    with scope.tenant(tenant_id):
        assert not Lease.objects.exists()


def test_a_dead_processs_lease_is_settled_by_who_comes_next(tenant_id: UUID) -> None:
    limit, dead = put(tenant_id, 1000), ids.new()
    (told,) = budgets.report([order(limit, dead, need=600)])
    assert budgets.report([order(limit, ids.new(), need=600)])[0].extra == 0
    age(limit, seconds=31)
    assert numbers(limit) == (600, 0, 400)
    assert budgets.report([order(limit, ids.new(), need=400)])[0].extra == 400
    assert budgets.report([order(limit, dead, 2, told.window, used=10)])[0].outcome == "lost"
    assert numbers(limit)[0] == 600


def test_a_new_day_begins_with_nothing_spent_and_without_the_old_leases(tenant_id: UUID) -> None:
    limit, old = put(tenant_id, 1000, "day"), ids.new()
    (told,) = budgets.report([order(limit, old, need=900)])
    assert told.window_seconds is not None
    assert 0 < told.window_seconds <= 86_400
    age(limit, days=1)
    assert numbers(limit) == (0, 0, 1000)
    assert budgets.report([order(limit, old, 2, told.window, used=900)])[0].outcome == "lost"
    assert budgets.report([order(limit, ids.new(), need=1000)])[0].extra == 1000
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert shown(limit)["window_start"] == today.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_another_number_keeps_what_is_spent_and_another_period_does_not(tenant_id: UUID) -> None:
    limit, lease = put(tenant_id, 1000), ids.new()
    (told,) = budgets.report([order(limit, lease, need=600)])
    budgets.report([order(limit, lease, 2, told.window, used=600)])
    assert numbers(put(tenant_id, 500)) == (600, 0, 0)
    assert budgets.report([order(limit, ids.new(), need=1)])[0].extra == 0
    assert numbers(put(tenant_id, 700)) == (600, 0, 100)
    assert numbers(put(tenant_id, 700, "month")) == (0, 0, 700)
    assert put(tenant_id, 700, "month").id == limit.id


def test_a_removed_budget_is_gone_with_its_leases_and_a_new_one_is_another(tenant_id: UUID) -> None:
    limit, lease = put(tenant_id, 1000), ids.new()
    (told,) = budgets.report([order(limit, lease, need=600)])
    with scope.tenant(tenant_id):
        budgets.remove(SYSTEM, None)
    assert budgets.report([order(limit, lease, 2, told.window, used=600)]) == [GONE]
    assert put(tenant_id, 1000).id != limit.id


def test_a_change_is_recorded_and_raises_the_generation(tenant_id: UUID) -> None:
    key = ids.new()
    put(tenant_id, 1000, "day", ids.new())
    before = Generation.objects.get(name="budgets").value
    put(tenant_id, 1000, "day", key)
    with scope.tenant(tenant_id):
        budgets.remove(SYSTEM, key)
        entries = [(entry.action, entry.detail) for entry in Entry.objects.order_by("id")][-2:]
    subject = ids.text("key", key)
    assert entries == [
        ("budget.set", {"subject": subject, "tokens": 1000, "period": "day"}),
        ("budget.removed", {"subject": subject}),
    ]
    assert Generation.objects.get(name="budgets").value == before + 2


def test_processes_at_once_never_get_more_than_there_is(tenant_id: UUID) -> None:
    """Eight threads with connections of their own take tenths until nothing is left."""
    limit = put(tenant_id, 10_000)
    granted, errors = [0] * 8, []

    def take(number: int) -> None:
        try:
            while (told := budgets.report([order(limit, ids.new(), need=90 + number)])[0]).extra:
                granted[number] += told.extra
        except Exception as error:  # shown by the test's own thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=take, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert 10_000 - 97 < sum(granted) <= 10_000
    assert numbers(limit) == (0, sum(granted), 10_000 - sum(granted))


def test_two_who_set_a_first_budget_at_once_make_one(tenant_id: UUID) -> None:
    errors: list[Exception] = []

    def set_it(tokens: int) -> None:
        try:
            put(tenant_id, tokens)
        except Exception as error:  # shown by the test's own thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=set_it, args=[tokens]) for tokens in (1000, 2000, 3000, 4000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(budgets.limits(tenant_id)) == 1


def test_a_flush_settles_budgets_of_many_tenants_and_keys(tenant_id: UUID) -> None:
    other = create_tenant("other", "owner@other.test").tenant.id
    limits = [put(tenant_id, 1000), put(tenant_id, 1000, None, ids.new()), put(other, 1000)]
    leases = Leases()

    async def reserved() -> list[Reservation]:
        return [await leases.reserve([limit], 100, _in_thread) for limit in limits]

    for used, reservation in enumerate(asyncio.run(reserved())):
        reservation.settle(used)
    while leases.cut():
        leases.send()
    assert [numbers(limit) for limit in limits] == [(0, 0, 1000), (1, 0, 999), (2, 0, 998)]


def test_what_a_tenants_budgets_are_is_read_once_and_again_after_a_change(acme: Deposit, globex: Deposit) -> None:
    from strongroom.access.services import find

    principal = find(str(acme.api.secret))
    generations = Generations(0)
    reads: list[UUID] = []

    def load(tenant_id: UUID) -> list[Limit]:
        reads.append(tenant_id)
        return budgets.limits(tenant_id)

    limits = Limits(load, generations)

    def asked() -> list[tuple[UUID | None, int]]:
        generations.look()
        return [(limit.key_id, limit.tokens) for limit in asyncio.run(limits.find(principal, _in_thread))]

    assert (asked(), asked(), reads) == ([], [], [acme.id])
    put(globex.id, 5)
    put(acme.id, 1000)
    put(acme.id, 10, None, ids.new())
    assert asked() == [(None, 1000)]
    put(acme.id, 500, None, principal.id)
    assert asked() == asked() == [(principal.id, 500), (None, 1000)]
    assert len(reads) == 3


async def _in_thread(call: Any, argument: Any) -> Any:
    def work() -> Any:
        try:
            return call(argument)
        finally:
            connection.close()

    return await asyncio.to_thread(work)


class Table:
    """The world's database (tests/metering/world.py), in truth: time passes by moving what the rows say."""

    def __init__(self, tenant_id: UUID, tokens: int) -> None:
        with scope.tenant(tenant_id):
            Budget.objects.all().delete()
        self.limit = put(tenant_id, tokens)
        self.window_start = None
        self.settled = 0

    def report(self, orders: Sequence[Order]) -> list[Told]:
        dead = {order.lease for order in orders}
        with scope.tenant(self.limit.tenant_id):
            late = Lease.objects.filter(expires_at__lt=datetime.now(UTC)).exclude(id__in=dead)
            granted = sum(lease.granted for lease in late)
        told = budgets.report(orders)
        self.settled += granted
        return told

    def change(self, tokens: int) -> None:
        self.limit = put(self.limit.tenant_id, tokens)

    def pass_time(self, seconds: float) -> None:
        with scope.tenant(self.limit.tenant_id):
            Lease.objects.update(expires_at=F("expires_at") - timedelta(seconds=seconds))

    @property
    def spent(self) -> int:
        return numbers(self.limit)[0]

    @property
    def reserved(self) -> int:
        return numbers(self.limit)[1]


def test_no_order_of_events_over_spends_in_the_database_either(tenant_id: UUID) -> None:
    class InTheDatabase(Processes):
        def open_database(self, tokens: int, period: str | None) -> Table:
            return Table(tenant_id, tokens)

    run_state_machine_as_test(
        InTheDatabase,
        settings=settings(
            max_examples=examples(10), stateful_step_count=40, suppress_health_check=list(HealthCheck), deadline=None
        ),
    )


def test_what_a_budget_refuses_is_one_of_ours(tenant_id: UUID) -> None:
    limit = put(tenant_id, 10, "month")
    with pytest.raises(StrongroomError) as caught:
        asyncio.run(Leases().reserve([limit], 11, _in_thread))
    assert caught.value.code == "budget_exhausted"
    assert "10 tokens a month" in caught.value.detail

"""Usage: counted once however often a batch is sent, and never lost to a database that was away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from django.db import OperationalError

from strongroom.ids import new
from strongroom.metering import services
from strongroom.metering.models import Usage
from strongroom.metering.services import Meter
from strongroom.tenants import scope
from strongroom.tenants.services import create_tenant

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

COUNTERS = services.COUNTERS


@pytest.fixture
def tenant_id() -> UUID:
    return create_tenant("metered", "owner@metered.test").tenant.id


def flush(meter: Meter) -> None:
    """Everything, as a process's end does."""
    while meter.cut():
        meter.send()


def usage(tenant_id: UUID) -> list[tuple[int, ...]]:
    with scope.tenant(tenant_id, write=False):
        return sorted(Usage.objects.values_list(*COUNTERS))


def test_calls_of_a_minute_become_one_row(tenant_id: UUID) -> None:
    meter, deployment, version, principal = Meter(), new(), new(), new()
    meter.count(tenant_id, deployment, version, principal, items=2, compute_us=10, queue_us=1)
    meter.count(tenant_id, deployment, version, principal, failed=True)
    flush(meter)
    meter.count(tenant_id, deployment, version, principal, items=3, compute_us=20, queue_us=2)
    flush(meter)
    total = [sum(column) for column in zip(*usage(tenant_id), strict=True)]
    assert total == [3, 5, 1, 30, 3, 0, 0, 0, 0]


def test_tokens_are_counted_beside_the_rest(tenant_id: UUID) -> None:
    meter, key = Meter(), (new(), new(), new())
    meter.count(tenant_id, *key, items=1, tokens_in=30, tokens_cached=20, tokens_out=8, tokens_cancelled=8)
    meter.count(tenant_id, *key, items=1, tokens_in=5, tokens_out=2)
    meter.count(tenant_id, *key, failed=True)
    flush(meter)
    total = [sum(column) for column in zip(*usage(tenant_id), strict=True)]
    assert total == [3, 2, 1, 0, 0, 35, 20, 10, 8]


def test_a_batch_sent_twice_counts_once(tenant_id: UUID) -> None:
    process, key = new(), (tenant_id, new(), new(), new(), 29_000_000)
    assert services.store(process, 1, {key: [1, 2, 0, 4, 5, 6, 7, 8, 9]})
    assert not services.store(process, 1, {key: [1, 2, 0, 4, 5, 6, 7, 8, 9]})
    assert services.store(process, 2, {key: [1, 2, 0, 4, 5, 6, 7, 8, 9]})
    assert services.store(new(), 1, {key: [1, 2, 1, 4, 5, 6, 7, 8, 9]})
    assert usage(tenant_id) == [(3, 6, 1, 12, 15, 18, 21, 24, 27)]


@pytest.mark.parametrize("committed", [False, True])
def test_a_database_that_was_away_loses_nothing_and_doubles_nothing(
    tenant_id: UUID, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """`committed`: the batch came through, but its answer did not."""
    meter, key = Meter(), (new(), new(), new())
    meter.count(tenant_id, *key, items=1)
    real = services.store

    def away(*batch: object) -> bool:
        if committed:
            real(*batch)  # type: ignore[arg-type]  # handed through as it comes
        raise OperationalError

    monkeypatch.setattr(services, "store", away)
    with pytest.raises(OperationalError):
        flush(meter)
    meter.count(tenant_id, *key, items=1)
    monkeypatch.setattr(services, "store", real)
    flush(meter)
    assert [sum(column) for column in zip(*usage(tenant_id), strict=True)][:2] == [2, 2]


def test_what_is_counted_while_a_batch_is_sent_goes_into_the_next(
    tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter, key = Meter(), (new(), new(), new())
    meter.count(tenant_id, *key)
    real = services.store

    def slow(*batch: object) -> bool:
        meter.count(tenant_id, *key)
        monkeypatch.setattr(services, "store", real)
        return real(*batch)  # type: ignore[arg-type]  # handed through as it comes

    monkeypatch.setattr(services, "store", slow)
    assert meter.cut()
    sender: Callable[[], None] = meter.send
    thread = threading.Thread(target=sender)
    thread.start()
    thread.join()
    flush(meter)
    assert sum(row[0] for row in usage(tenant_id)) == 2


def test_another_tenants_usage_is_not_seen(tenant_id: UUID) -> None:
    other = create_tenant("other", "owner@other.test").tenant.id
    meter = Meter()
    meter.count(other, new(), new(), new())
    flush(meter)
    assert usage(tenant_id) == []
    assert len(usage(other)) == 1

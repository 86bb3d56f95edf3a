"""Budgets as rows: set and removed, shown, and what a process's orders change in them, under the budget's lock.

One clock counts, the database's. A window that is over is found by whoever looks next: its leases end there, and what
was reserved in it is of it, whenever it is used. Inside the tenant's scope, but for `report` and `limits`, which enter
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

from strongroom import ids
from strongroom.access.models import Generation
from strongroom.audit.services import record
from strongroom.errors import NotFound
from strongroom.metering import ledger
from strongroom.metering.ledger import GONE, Account, Order, Share, Told
from strongroom.metering.models import Budget, Lease
from strongroom.rest.bodies import moment
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Tenant

GENERATION = "budgets"
MOST_TOKENS = 2**53 - 1  # what JSON's readers keep exactly


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget's definition, as a process remembers it."""

    id: UUID
    tenant_id: UUID
    key_id: UUID | None  # None: the whole tenant's
    tokens: int
    period: str | None

    @property
    def subject(self) -> str:
        return _subject(self.key_id)


def put(actor: Actor, key_id: UUID | None, *, tokens: int, period: str | None) -> Budget:
    """Sets a key's budget, or the whole tenant's. Another period begins a new window; another number does not."""
    now = Tenant.objects.select_for_update(no_key=True).values_list(Now()).get(id=scope.tenant_id())[0]
    row = Budget.objects.select_for_update().filter(principal_id=key_id).first() or Budget(principal_id=key_id)
    is_new = row.window_start is None
    if is_new or row.period != period:
        row.window_start, row.spent = ledger.begins(period, now, now), 0
        row.leases.all().delete()
    row.tokens, row.period = tokens, period
    row.save()
    _announce(actor, "budget.set", row, tokens=tokens, period=period)
    return budgets().get(id=row.id)


def move(old_key_id: UUID, new_key_id: UUID) -> None:
    """A key was rotated: its budget, and what is spent of it, are the new one's."""
    if Budget.objects.filter(principal_id=old_key_id).update(principal_id=new_key_id):
        Generation.bump(GENERATION)


def remove(actor: Actor, key_id: UUID | None) -> None:
    """NotFound."""
    row = find(key_id)
    _announce(actor, "budget.removed", row)
    row.delete()


def budgets() -> QuerySet[Budget]:
    """The tenant's, fit for `document`."""
    return Budget.objects.annotate(now=Now()).prefetch_related("leases")


def find(key_id: UUID | None) -> Budget:
    """NotFound."""
    if (row := budgets().filter(principal_id=key_id).first()) is None:
        whose = "the tenant" if key_id is None else ids.text("key", key_id)
        raise NotFound(f"{whose} has no budget; PUT sets one")
    return row


def document(row: Budget) -> dict[str, Any]:
    """The body of the native API. What processes reserve is known as of their last report, seconds ago."""
    now: datetime = row.now  # type: ignore[attr-defined]  # annotated by `budgets`
    start = max(row.window_start, ledger.begins(row.period, now, row.window_start))
    account = Account(row.tokens, start)
    if start == row.window_start:
        account = _account(row)
        account.settle(now)
    return {
        "subject": _subject(row.principal_id),
        "tokens": row.tokens,
        "period": row.period,
        "spent": account.spent_so_far,
        "reserved": account.reserved,
        "remaining": max(0, row.tokens - account.spent_so_far - account.reserved),
        "window_start": moment(start),
    }


def limits(tenant_id: UUID) -> list[Limit]:
    """All of a tenant."""
    with scope.tenant(tenant_id, write=False):
        return [Limit(row.id, tenant_id, row.principal_id, row.tokens, row.period) for row in Budget.objects.all()]


def report(orders: Sequence[Order]) -> list[Told]:
    """What becomes of orders of one tenant, in one transaction; in one order of locks, whoever else reports."""
    with scope.tenant(orders[0].tenant):
        told = {order: _take(order) for order in sorted(orders, key=lambda order: order.budget)}
    return [told[order] for order in orders]


def _take(order: Order) -> Told:
    row = Budget.objects.select_for_update().annotate(now=Now()).filter(id=order.budget).first()
    if row is None:
        return GONE
    _turn(row, row.now)
    account = _account(row)
    before = dict(account.shares)
    account.settle(row.now, but=order.lease)
    told = account.take(order, row.now)
    _write(row, before, account)
    end = ledger.ends(row.period, row.window_start)
    seconds = None if end is None else (end - row.now).total_seconds()
    return replace(told, window_end=end, window_seconds=seconds)


def _turn(row: Budget, now: datetime) -> None:
    """Into the window of `now`, where the row's is over; never back."""
    start = ledger.begins(row.period, now, row.window_start)
    if start > row.window_start:
        Budget.objects.filter(id=row.id).update(window_start=start, spent=0)
        row.window_start, row.spent = start, 0
        row.leases.all().delete()


def _account(row: Budget) -> Account:
    shares = {one.id: Share(one.granted, one.used, one.serial, one.expires_at) for one in row.leases.all()}
    return Account(row.tokens, row.window_start, row.spent, shares)


def _write(row: Budget, before: dict[UUID, Share], account: Account) -> None:
    """Of the account what has changed."""
    if ended := before.keys() - account.shares.keys():
        Lease.objects.filter(id__in=ended).delete()
    if account.spent != row.spent:
        Budget.objects.filter(id=row.id).update(spent=account.spent)
    for id, share in account.shares.items():
        if share is before.get(id):
            continue
        values = {name: getattr(share, name) for name in ("granted", "used", "serial", "expires_at")}
        if id in before:
            Lease.objects.filter(id=id).update(**values)
        else:
            Lease.objects.create(id=id, budget=row, **values)


def _subject(key_id: UUID | None) -> str:
    return "tenant" if key_id is None else ids.text("key", key_id)


def _announce(actor: Actor, action: str, row: Budget, **detail: Any) -> None:
    Generation.bump(GENERATION)
    record(actor, action, "budget", row.id, subject=_subject(row.principal_id), **detail)

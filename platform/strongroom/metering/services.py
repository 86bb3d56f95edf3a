"""The door of the metering: uses counted in memory, added to the table in numbered batches, each exactly once.

A batch belongs to (process, number). What was counted since the last one becomes the next batch; a batch whose flush
failed, or whose commit was not heard of, is sent again under its number and changes nothing the second time. A process
killed outright loses what it had not flushed, at most a flush's interval. With the usage goes what became of the
leases of budgets (leases.py), for which a killed process loses nothing. Knows nothing of prices.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from strongroom import ids
from strongroom.metering.leases import LEASES, Leases, Reservation
from strongroom.metering.limits import LIMITS
from strongroom.metering.models import Batch, Usage
from strongroom.tenants import scope

__all__ = ["LEASES", "LIMITS", "METER", "Meter", "Reservation", "store"]

Id = UUID | str  # of one kind in one process; as text it is hashed in no time
Key = tuple[Id, Id, Id, Id, int]  # tenant, deployment, version, principal, minute since the epoch
KEYS = ("tenant_id", "deployment_id", "version_id", "principal_id", "minute")
REMEMBERED = timedelta(days=7)  # a batch is repeated within minutes or never
FORGET_EVERY = 500  # batches
TOKENS = ("tokens_in", "tokens_cached", "tokens_out", "tokens_cancelled")
COUNTERS = ("calls", "items", "errors", "compute_us", "queue_us", *TOKENS)


class Meter:
    """The uses that one process has seen. `count` and `cut` belong to one thread; `send` may run on another.

    `leases`: those of this process, where it reserves from budgets.
    """

    def __init__(self, leases: Leases | None = None) -> None:
        self.process_id = ids.new()
        self.number = 0
        self._open: dict[Key, list[int]] = {}
        self._sent: dict[Key, list[int]] = {}  # the batch under `number`, kept until it is known to be counted
        self._sending = threading.Lock()  # one batch is sent by one thread
        self._leases = leases

    def count(
        self,
        tenant_id: Id,
        deployment_id: Id,
        version_id: Id,
        principal_id: Id,
        *,
        items: int = 0,
        failed: bool = False,
        compute_us: int = 0,
        queue_us: int = 0,
        tokens_in: int = 0,
        tokens_cached: int = 0,
        tokens_out: int = 0,
        tokens_cancelled: int = 0,
    ) -> None:
        """One call. Never waits, never fails. Cached are of the tokens in, cancelled of the tokens out."""
        key = (tenant_id, deployment_id, version_id, principal_id, int(time()) // 60)
        counters = self._open.get(key)
        if counters is None:
            counters = self._open[key] = [0] * len(COUNTERS)
        counters[0] += 1
        counters[1] += items
        counters[2] += failed
        counters[3] += compute_us
        counters[4] += queue_us
        if tokens_in or tokens_out:
            counters[5] += tokens_in
            counters[6] += tokens_cached
            counters[7] += tokens_out
            counters[8] += tokens_cancelled

    def cut(self) -> bool:
        """Makes what was counted so far the next batch, on the counting thread; whether there is anything to send."""
        if not self._sent and self._open:
            self.number += 1
            self._open, self._sent = {}, self._open
        has_reports = self._leases is not None and self._leases.cut()
        return bool(self._sent) or has_reports

    def send(self) -> None:
        """Adds the batch that `cut` made to the table, on any thread. DatabaseError leaves it to be sent again."""
        with self._sending:
            if self._sent:
                store(self.process_id, self.number, self._sent)
                self._sent = {}
        if self._leases is not None:
            self._leases.send()


METER = Meter(LEASES)


def store(process_id: UUID, number: int, counted: dict[Key, list[int]]) -> bool:
    """Adds a batch, in one transaction; False where it was added before."""
    with scope.operator("metering: add a batch of usage"):
        connection = connections[scope.alias()]
        if not _first_time(connection, process_id, number):
            return False
        rows = [_row(connection, key, counters) for key, counters in sorted(counted.items())]
        with connection.cursor() as cursor:
            cursor.executemany(_ADD, rows)
        if number % FORGET_EVERY == 0:
            Batch.objects.filter(at__lt=timezone.now() - REMEMBERED).delete()
        return True


def _first_time(connection: BaseDatabaseWrapper, process_id: UUID, number: int) -> bool:
    table = Batch._meta.db_table
    values = [
        _value(connection, Batch, "process_id", process_id),
        number,
        _value(connection, Batch, "at", timezone.now()),
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (process_id, number, at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",  # noqa: S608  # the table's name is ours
            values,
        )
        return bool(cursor.rowcount == 1)


_ADD = (
    f"INSERT INTO {Usage._meta.db_table} AS counted ({', '.join(KEYS + COUNTERS)}) "  # noqa: S608  # names of ours only
    f"VALUES ({', '.join(['%s'] * len(KEYS + COUNTERS))}) ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET "
    + ", ".join(f"{name} = counted.{name} + excluded.{name}" for name in COUNTERS)
)


def _row(connection: BaseDatabaseWrapper, key: Key, counters: list[int]) -> list[Any]:
    *identities, minute = key
    values: list[Any] = [
        _value(connection, Usage, name, value) for name, value in zip(KEYS[:-1], identities, strict=True)
    ]
    moment = datetime.fromtimestamp(minute * 60, UTC)
    return [*values, _value(connection, Usage, "minute", moment), *counters]


def _value(connection: BaseDatabaseWrapper, model: Any, name: str, value: Any) -> Any:
    """As this database keeps it: SQLite has no uuid."""
    field = next(each for each in model._meta.concrete_fields if each.attname == name)
    return field.get_db_prep_value(value, connection)

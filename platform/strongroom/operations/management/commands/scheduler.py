"""`manage.py scheduler`: the sweep, twice a second. Any number may run, one acts."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, close_old_connections, connections

from strongroom.files import services as files
from strongroom.idempotency import services as idempotency
from strongroom.jobs.sweep import Sweeper
from strongroom.vault import services as vault

TICK_SECONDS = 0.5
MINUTE, HOUR = 60.0, 3600.0
logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Sweep until SIGTERM: lost leases, lost wake-ups, expiries, orphans."
    requires_system_checks: list[str] = []  # web and migrate run them

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        sweeper = Sweeper(
            (HOUR, vault.collect_orphans), (MINUTE, idempotency.forget_expired), (MINUTE, files.forget_expired)
        )
        while not stop.wait(TICK_SECONDS):
            close_old_connections()
            try:
                sweeper.tick()
            except DatabaseError as error:
                logger.warning("no sweep, the database does not answer (%s)", type(error).__name__)
                connections.close_all()

"""`manage.py worker`: the jobs of this node. Slots claim and supervise; Celery, in the main thread, wakes them.

The slots work without a broker too: they look at the table each second. SIGTERM drains: running jobs seal a
checkpoint and go back to the queue.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
import warnings
from typing import Any

from celery.exceptions import SecurityWarning
from celery.signals import worker_shutting_down
from celery.worker import state
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

import sandbox
from strongroom.celery import app
from strongroom.jobs import tasks
from strongroom.jobs.worker import Worker
from strongroom.operations import ring
from strongroom.rest.problem import log_failure

RESTART_SECONDS = 2.0
logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Run this node's jobs until SIGTERM, which hands them back."
    requires_system_checks: list[str] = []  # web and migrate run them; a worker starts at once

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--node", default=socket.gethostname(), help="the name that jobs show as their worker")

    def handle(self, *args: Any, **options: Any) -> None:
        environment = settings.ENVIRONMENT
        _check()
        worker = Worker(
            options["node"],
            tuple(environment.listed("queues")),
            long_slots=environment.number("jobs_per_worker"),
            lease_seconds=environment.number("lease_seconds"),
        )
        tasks.on_wake(worker.wake)
        stopping = threading.Event()

        def stop(*_: Any, **__: Any) -> None:
            stopping.set()
            # A signal that came while Celery was still starting: its loop looks here.
            state.should_stop = 0  # type: ignore[assignment]  # the stubs know its first value only
            worker.stop()

        worker_shutting_down.connect(stop, weak=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)  # until Celery sets its own, which send the signal above
        worker.start()
        logger.info("worker %s takes jobs of %s", options["node"], environment.queues)
        try:
            self._listen(options["node"], stopping)
        finally:
            stop()
            worker.join()

    def _listen(self, node: str, stopping: threading.Event) -> None:
        """Celery's consumer until the stop; when it ends by itself (a broker that breaks it), it is begun again."""
        warnings.filterwarnings("ignore", category=SecurityWarning)  # "as root": it takes JSON without content only
        while not stopping.is_set():
            consumer = app.Worker(
                hostname=f"{node}-{time.monotonic_ns()}",
                pool_cls="solo",
                concurrency=1,
                queues=settings.ENVIRONMENT.queues,
                loglevel="WARNING",
                optimization="fair",
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
                quiet=True,
            )
            try:
                consumer.start()
            except Exception as error:
                logger.error("the consumer of wake-ups ended; jobs go on by looking at the table")
                log_failure(error)
            stopping.wait(RESTART_SECONDS)


def _check() -> None:
    """Refuses to start with another database's root keys, or without the walls that the operator requires."""
    missing = sandbox.report().missing
    if settings.ENVIRONMENT.sandbox == "require" and missing:
        raise CommandError(str(sandbox.SandboxUnavailable(missing)))
    ring.verify()

"""Wake-ups: content-free messages by Celery that tell a worker to look at the table sooner than it would by itself.

They are sent after the commit, by a thread of their own, so that a broker that is dead or silent holds no request.
One that cannot be sent is dropped with a line in the log: the sweep sends again for what waits, and workers look by
themselves.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from django.db import transaction

from strongroom.celery import app
from strongroom.tenants import scope

TASK = "strongroom.jobs.wake"
ONE_TRY = {"max_retries": 0, "interval_start": 0}
logger = logging.getLogger(__name__)


class Sender:
    """One thread, made at the first wake-up. Wake-ups that wait for it are one, for they say nothing but "look"."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _thread, _pending
        self._thread: ThreadPoolExecutor | None = None
        self._pending: set[str] = set()

    def send(self, queue: str) -> None:
        with self._lock:
            if queue in self._pending:
                return
            self._pending.add(queue)
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="wakeups")
            self._thread.submit(self._publish, queue)

    def _publish(self, queue: str) -> None:
        with self._lock:
            self._pending.discard(queue)
        publish(queue)


def publish(queue: str) -> bool:
    """Sends one wake-up in this thread; False where the broker did not take it."""
    try:
        # A connection of its own: one that is kept would be found dead after the broker's restart.
        with app.connection_for_write(transport_options=ONE_TRY) as connection:
            app.send_task(TASK, queue=queue, connection=connection, retry=False, ignore_result=True)
    except Exception as error:  # the broker's library raises its own, kombu's and OSError: all mean "not sent"
        logger.warning("no wake-up sent to queue %s (%s); the sweep sends again", queue, type(error).__name__)
        return False
    return True


_sender = Sender()


def send(queue: str) -> None:
    """Wakes a worker, in the sender's thread: the caller waits for no broker."""
    _sender.send(queue)


def after_commit(queue: str) -> None:
    """Wakes a worker once the caller's transaction is committed."""
    transaction.on_commit(lambda: send(queue), using=scope.alias())

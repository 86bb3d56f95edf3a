"""A worker: threads that claim jobs and see them through, woken by Celery and looking by themselves each second.

`long_slots` threads take any kind, one more takes short kinds only, so that long trainings never hold up a check. A
slot's thread lives as long as the process, since the kernel ends a job's process with the thread that started it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from django.db import DatabaseError, close_old_connections, connections

from strongroom.jobs.attempts import see_through
from strongroom.jobs.claim import Taker, claim
from strongroom.rest.problem import log_failure

LOOK_SECONDS = 1.0
logger = logging.getLogger(__name__)


class Worker:
    """The slots of one process. `wake` may be called from any thread."""

    def __init__(self, node: str, queues: tuple[str, ...], *, long_slots: int, lease_seconds: int) -> None:
        self._taker = Taker(node, queues, lease_seconds)
        self._woken = threading.Condition()  # guards _wake_ups
        self._wake_ups = 0
        self._stop = threading.Event()
        name = f"{node}-{'+'.join(queues)}"
        takers = [replace(self._taker, worker=f"{name}-{number}") for number in range(1, long_slots + 1)]
        takers.append(replace(self._taker, worker=f"{name}-short", short_only=True))
        self._threads = [threading.Thread(target=self._slot, args=(taker,), name=taker.worker) for taker in takers]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Every idle slot looks at the table now."""
        with self._woken:
            self._wake_ups += 1
            self._woken.notify_all()

    def stop(self) -> None:
        """No more claims; running jobs are told to drain and go back to the queue."""
        self._stop.set()
        self.wake()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _slot(self, taker: Taker) -> None:
        seen = -1
        while not self._stop.is_set():
            with self._woken:
                self._woken.wait_for(lambda seen=seen: self._wake_ups != seen, timeout=LOOK_SECONDS)  # type: ignore[misc]  # bound now
                seen = self._wake_ups
            self._take_all(taker)
        connections.close_all()

    def _take_all(self, taker: Taker) -> None:
        while not self._stop.is_set():
            close_old_connections()
            try:
                taken = claim(taker)
            except DatabaseError as error:
                logger.warning("no claim, the database does not answer (%s)", type(error).__name__)
                connections.close_all()
                return
            except Exception as error:
                logger.error("a claim failed")
                log_failure(error)
                return
            if taken is None:
                return
            see_through(*taken, self._stop, taker.lease_seconds)

"""One claimed job to the end of its attempt: which way of working its kind has, and what nobody foresaw.

Runs in a slot's thread and never raises: whatever happens, the row says how the attempt ended, or the sweep will.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connections

from strongroom.deployments.client import EngineLost
from strongroom.errors import StrongroomError
from strongroom.jobs import answering, batch_work, endings, failures, outcomes
from strongroom.jobs.lease import Lease
from strongroom.jobs.models import Attempt, Job
from strongroom.jobs.moves import Moved
from strongroom.jobs.supervise import Supervision
from strongroom.rest.problem import log_failure
from strongroom.tenants import scope
from strongroom.vault import services as vault

AWAY = frozenset({"keys_unavailable", "database_unavailable", "queue_full"})  # and back in a while
AWAY_SECONDS = 2.0
logger = logging.getLogger(__name__)


def see_through(job: Job, attempt: Attempt, stop: threading.Event, lease_seconds: int) -> None:
    """One claimed job, to the end of this attempt. Never raises: what nobody foresaw fails the job."""
    lease = Lease(job, stop, lease_seconds)
    try:
        _work(job, attempt, lease)
    except Moved:
        logger.warning("job %s, attempt %s: the lease is gone, the work is dropped", job.id, job.attempt)
    except Exception as error:
        _unforeseen(job, error)


def _work(job: Job, attempt: Attempt, lease: Lease) -> None:
    OF_KIND.get(job.kind, _supervise)(job, attempt, lease)


def _supervise(job: Job, attempt: Attempt, lease: Lease) -> None:
    Supervision(job, attempt, lease).run()


# What is asked of the node's cells; every other kind is a process's work.
OF_KIND: dict[str, Callable[[Job, Attempt, Lease], None]] = {"predict": answering.work, "batch": batch_work.work}


def _unforeseen(job: Job, error: Exception) -> None:
    """Around the work: what is away for a while hands the job back, a lost engine or database costs the attempt."""
    if isinstance(error, DatabaseError | InterfaceError):
        log_failure(error)
        connections.close_all()  # of this thread: the next try connects afresh
    try:
        with scope.tenant(job.tenant_id):
            job.refresh_from_db(fields=["state", "cancel_requested_at"])
            _end(job, error)
    except Moved:
        pass
    except Exception as failure:
        # The database is away: the lease runs out and the sweep hands the job on.
        logger.error("job %s, attempt %s: its end could not be written", job.id, job.attempt)
        log_failure(failure)


def _end(job: Job, error: Exception) -> None:
    match error:
        case StrongroomError() if error.code in AWAY:
            endings.hand_back(job, outcome="drained", wait_seconds=AWAY_SECONDS)
        case EngineLost() | DatabaseError() | InterfaceError():
            endings.lost(job)
        case StrongroomError():
            endings.fail(job, outcomes.failure_of(error))
        case vault.ArtefactCorrupt():
            endings.fail(job, failures.ARTEFACT_CORRUPT)
        case _:
            logger.error("job %s, attempt %s: unforeseen", job.id, job.attempt)
            log_failure(error)
            endings.fail(job, failures.INTERNAL)

"""One claimed job to the end of its attempt: which way of working its kind has, and what nobody foresaw.

Runs in a slot's thread and never raises: whatever happens, the row says how the attempt ended, or the sweep will.
"""

from __future__ import annotations

import logging
import threading

from django.db import DatabaseError, InterfaceError, connections

from strongroom.errors import StrongroomError, Unavailable
from strongroom.jobs import answering, endings, failures, outcomes
from strongroom.jobs.endings import Failure
from strongroom.jobs.lease import Lease
from strongroom.jobs.models import Attempt, Job
from strongroom.jobs.moves import Moved
from strongroom.jobs.supervise import Supervision
from strongroom.rest.problem import log_failure
from strongroom.tenants import scope
from strongroom.vault import services as vault

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
    if job.kind == "predict":
        answering.work(job, attempt, lease)
    else:
        Supervision(job, attempt, lease).run()


def _unforeseen(job: Job, error: Exception) -> None:
    """Before or around the process: keys that are away hand the job back, a corrupt input fails it."""
    if isinstance(error, DatabaseError | InterfaceError):
        log_failure(error)
        connections.close_all()  # of this thread: the next try connects afresh
    try:
        with scope.tenant(job.tenant_id):
            job.refresh_from_db(fields=["state", "cancel_requested_at"])
            if isinstance(error, Unavailable) and error.code != "storage_full":
                endings.hand_back(job, outcome="drained", wait_seconds=2)
                return
            if isinstance(error, DatabaseError | InterfaceError):
                endings.lost(job)
                return
            if not isinstance(error, StrongroomError | vault.ArtefactCorrupt):
                logger.error("job %s, attempt %s: unforeseen", job.id, job.attempt)
                log_failure(error)
            endings.fail(job, _failure(error))
    except Moved:
        pass
    except Exception as failure:
        # The database is away: the lease runs out and the sweep hands the job on.
        logger.error("job %s, attempt %s: its end could not be written", job.id, job.attempt)
        log_failure(failure)


def _failure(error: Exception) -> Failure:
    if isinstance(error, vault.ArtefactCorrupt):
        return failures.ARTEFACT_CORRUPT
    return outcomes.failure_of(error) if isinstance(error, StrongroomError) else failures.INTERNAL

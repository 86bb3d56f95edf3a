"""The states of a job: one enum, one table.

queued → running → succeeded
   │        ├────→ failed
   │        └────→ queued      (worker lost or draining: the next attempt goes on from the last checkpoint)
   └────────────→ cancelled    (from queued at once; from running when the worker confirms)
"""

from __future__ import annotations

from django.db import models


class State(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ALLOWED: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.QUEUED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
TERMINAL = frozenset(state for state, following in ALLOWED.items() if not following)

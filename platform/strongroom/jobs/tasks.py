"""The Celery task: a wake-up carries no work, it tells whoever registered to look at the table."""

from __future__ import annotations

from collections.abc import Callable

from strongroom.celery import app
from strongroom.jobs import wakeups

_listeners: list[Callable[[], None]] = []


def on_wake(call: Callable[[], None]) -> None:
    """Registers what a wake-up calls in this process (the worker's slots)."""
    _listeners.append(call)


@app.task(name=wakeups.TASK, ignore_result=True)
def wake() -> None:
    for call in _listeners:
        call()

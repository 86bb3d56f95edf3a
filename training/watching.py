"""Work that a library does in one long call, in a second thread, while the first goes on looking at what is wanted.

The parent kills a job half a second after a cancel that is not answered; an export, a parser or a session takes longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
LOOK_SECONDS = 0.05


def while_watching(work: Callable[[], Result], look: Callable[[], object]) -> Result:
    """What `work` returns or raises; `look` raises to end the wait, and the thread is left behind."""
    found: list[Result] = []
    failed: list[BaseException] = []

    def call() -> None:
        try:
            found.append(work())
        except BaseException as error:  # handed to the waiting thread, all of it
            failed.append(error)

    thread = threading.Thread(target=call, name="watched", daemon=True)
    thread.start()
    while thread.is_alive():
        look()
        thread.join(LOOK_SECONDS)
    if failed:
        raise failed[0]
    return found[0]

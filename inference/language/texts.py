"""The text thread of a base: chat templates, tokens and grammars, one request after the other, principals in turns.

What they cost is bounded. Where one goes on all the same this cell ends, and the next one begins without it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from inference.language.turns import Turns

MOST_SECONDS: Final = 10.0  # of one request
LOOK_SECONDS: Final = 1.0
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Task:
    lane: Hashable
    call: Callable[[], Any]
    done: asyncio.Future[Any]


class TextThread(threading.Thread):
    """`ask` is for the loop's thread, `end` for any."""

    def __init__(self, loop: Any) -> None:
        super().__init__(name="text", daemon=True)
        self._loop = loop
        self._turns: Turns[Task] = Turns()
        self._asked, self._watched = 0, False
        self._since: float | None = None  # it has been at one request; its own
        self.start()

    def ask(self, lane: Hashable, call: Callable[[], T]) -> asyncio.Future[T]:
        """What the call gives, once it is this lane's turn."""
        self._asked += 1
        if not self._watched:
            self._watched = True
            self._loop.call_later(LOOK_SECONDS, self._watch)
        done: asyncio.Future[T] = self._loop.create_future()
        done.add_done_callback(self._done)
        self._turns.enter(Task(lane, call, done))
        return done

    def end(self) -> None:
        """Once all that waits is done."""
        self._turns.end()

    def run(self) -> None:
        while (task := self._turns.take()) is not None:
            began = self._since = time.monotonic()
            try:
                settle = task.done.set_result, task.call()
            except BaseException as failure:  # the libraries' panics are no Exception
                settle = task.done.set_exception, failure
            self._since = None
            self._turns.leave(task, int((time.monotonic() - began) * 1e6))
            self._loop.call_soon_threadsafe(*settle)

    def _done(self, _: object) -> None:
        self._asked -= 1

    def _watch(self) -> None:
        since = self._since
        if since is not None and time.monotonic() - since > MOST_SECONDS:
            os.write(2, f"cell {os.getpid()}: a text took over {MOST_SECONDS:g} s to prepare\n".encode())
            os._exit(1)
        self._watched = self._asked > 0
        if self._watched:
            self._loop.call_later(LOOK_SECONDS, self._watch)

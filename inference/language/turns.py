"""Work that waits for one thread, in a lane a principal: the lane for which least was done goes first.

Which one that is lanes.py says; here whoever enters is on one thread and whoever works on another.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from inference.language.lanes import InLane, Lanes

T = TypeVar("T", bound=InLane)


class Turns(Generic[T]):
    """What waits. Any thread's."""

    def __init__(self) -> None:
        self._lanes: Lanes[T] = Lanes()
        self._ended = False
        self._changed = threading.Condition()  # guards the two above

    def enter(self, one: T) -> None:
        with self._changed:
            self._lanes.enter(one)
            self._changed.notify()

    def end(self) -> None:
        """Nothing more enters: `take` says so once nothing waits."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, *, wait: bool = True) -> T | None:
        """The next one; it is of its lane until it leaves. None where none is there and none is waited for."""
        with self._changed:
            while (one := self._lanes.next(lambda _: True)) is None:
                if self._ended or not wait:
                    return None
                self._changed.wait()
            self._lanes.take(one)
            return one

    def back(self, one: T, cost: int) -> None:
        """A part of it was done, at that cost, and it waits for its next turn."""
        with self._changed:
            self._lanes.charge(one.lane, cost)
            self._lanes.back(one)

    def leave(self, one: T, cost: int) -> None:
        """It is done, at that cost."""
        with self._changed:
            self._lanes.charge(one.lane, cost)
            self._lanes.leave(one)

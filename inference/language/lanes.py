"""Who is next: sequences wait in a lane a principal, and the lane that was served least goes first.

Served is counted in tokens, computed and made, as they happen: the virtual token counter of Sheng et al., "Fairness in
Serving Large Language Models" (OSDI 2024). A lane that comes back starts no further behind than the least served one
that is there, or than the last one that left, so that nobody saves up turns. Knows sequences by their lane only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, Protocol, TypeVar

REMEMBERED: Final = 4096  # lanes that are away


class InLane(Protocol):
    lane: Hashable


T = TypeVar("T", bound=InLane)


class Lanes(Generic[T]):
    """What waits. One thread's."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[T]] = {}
        self._served: dict[Hashable, int] = {}
        self._inside: dict[Hashable, int] = {}  # how many of a lane wait or run
        self._level = 0  # what the last lane that left had been served
        self.count = 0

    def enter(self, one: T) -> None:
        """New here: it waits."""
        lane = one.lane
        if lane not in self._inside:
            present = [self._served.get(other, 0) for other in self._inside]
            self._served[lane] = max(self._served.pop(lane, 0), min(present, default=self._level))
            self._inside[lane] = 0
            self._forget_some()
        self._inside[lane] += 1
        self._queue(lane).append(one)
        self.count += 1

    def back(self, one: T) -> None:
        """It ran and has to wait again: first of its lane."""
        self._queue(one.lane).appendleft(one)
        self.count += 1

    def leave(self, one: T) -> None:
        """It ended, or was taken out."""
        self._inside[one.lane] -= 1
        if not self._inside[one.lane]:
            del self._inside[one.lane]
            self._level = self.served(one.lane)

    def next(self, able: Callable[[T], bool]) -> T | None:
        """The first that is able, of the least served lane that has one; it stays."""
        for lane in sorted(self._waiting, key=self.served):
            for one in self._waiting[lane]:
                if able(one):
                    return one
        return None

    def take(self, one: T) -> None:
        """Out of the queue, wherever it stands; it is still of its lane until it leaves."""
        queue = self._waiting[one.lane]
        queue.remove(one)
        if not queue:
            del self._waiting[one.lane]
        self.count -= 1

    def charge(self, lane: Hashable, tokens: int) -> None:
        self._served[lane] = self._served.get(lane, 0) + tokens

    def served(self, lane: Hashable) -> int:
        return self._served.get(lane, 0)

    def __iter__(self) -> Iterator[T]:
        return (one for queue in self._waiting.values() for one in queue)

    def _queue(self, lane: Hashable) -> deque[T]:
        queue = self._waiting.get(lane)
        if queue is None:
            queue = self._waiting[lane] = deque()
        return queue

    def _forget_some(self) -> None:
        if len(self._served) > REMEMBERED + len(self._inside):
            for lane in [lane for lane in self._served if lane not in self._inside][: REMEMBERED // 2]:
                del self._served[lane]

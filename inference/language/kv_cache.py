"""Whose keys and values lie where: slots, the tokens that each holds, and how many cells are left.

A slot keeps what a sequence left behind, so that the next one with the same beginning (and the same key: adapter and
principal) computes only what differs. Each step looks past whatever is kept, so only so much is; but the last one is,
whatever its length, since a conversation that goes on is the usual case. Beginnings are shared without a copy, so cells
are counted here one by one, as llama.cpp counts them. Knows tokens and numbers; the context is told what to forget and
share.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Hashable
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

WORTH_SHARING: Final = 16  # tokens; fewer are computed again sooner than looked after


class Memory(Protocol):
    """What the context does with it."""

    def truncate(self, sequence: int, length: int) -> None: ...
    def copy(self, source: int, target: int, length: int) -> None: ...


class Slot:
    """One of llama.cpp's sequences. `tokens` are those whose keys and values are there, in order."""

    __slots__ = ("cells", "key", "number", "running", "tokens", "used")

    def __init__(self, number: int) -> None:
        self.number = number
        self.key: Hashable = None
        self.tokens: array[int] = array("i")
        self.cells: array[int] = array("i")
        self.running = False
        self.used = 0


class KvCache:
    """All slots of a context. One thread's."""

    def __init__(self, memory: Memory, slots: int, cells: int, kept: int | None = None) -> None:
        """`kept`: how many tokens idle slots keep; None: as many as there is room for."""
        self._memory, self._kept = memory, cells if kept is None else kept
        self._slots = [Slot(number) for number in range(slots)]
        self._free: list[int] = list(range(cells))
        self._users = np.zeros(cells, dtype=np.int32)
        self._clock = itertools.count(1)

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return len(self._free)

    @property
    def idle_slots(self) -> int:
        return sum(not slot.running for slot in self._slots)

    def fits(self, key: Hashable, tokens: array[int]) -> bool:
        """Whether there is room for all of them beside what runs."""
        source, common = self._best(key, tokens)
        held = self._held()
        shared = 0 if source is None else int(held[np.frombuffer(source.cells, dtype=np.int32, count=common)].sum())
        return len(tokens) - shared <= len(held) - int(held.sum())

    def take(self, key: Hashable, tokens: array[int]) -> tuple[Slot, int]:
        """An idle slot for a sequence of these tokens, and how many of them are there already: one at least is left
        to compute, since its logits are wanted. There must be an idle slot."""
        source, common = self._best(key, tokens)
        if source is not None and not source.running and (common == len(source.tokens) or self.idle_slots == 1):
            slot = source  # goes on where it ended
        else:
            idle = [slot for slot in self._slots if not slot.running and slot is not source]
            slot = min(idle, key=lambda slot: (len(slot.tokens) > 0, slot.used))
            self._truncate(slot, 0)
            if source is not None and common:
                self._share(source, slot, common)
        self._truncate(slot, common)
        slot.key, slot.running = key, True
        return slot, common

    def append(self, slot: Slot, tokens: array[int]) -> None:
        """The tokens are being computed; there must be as many free cells."""
        count = len(tokens)
        cells = self._free[-count:] if count else []
        del self._free[len(self._free) - count :]
        if count == 1:
            self._users[cells[0]] = 1
        else:
            self._users[cells] = 1
        slot.cells.extend(cells)
        slot.tokens.extend(tokens)

    def release(self, slot: Slot) -> None:
        """The sequence is out; what it left is kept, and what is too much then is forgotten, the oldest first."""
        slot.running = False
        slot.used = next(self._clock)
        kept = self._held()
        most = int(kept.sum()) + self._kept
        for one in sorted((one for one in self._slots if not one.running and one.tokens), key=lambda one: -one.used):
            kept[np.frombuffer(one.cells, dtype=np.int32)] = True
            if one is not slot and int(kept.sum()) > most:
                self._truncate(one, 0)

    def make_room(self, count: int) -> bool:
        """Forgets what idle slots hold, the longest unused first, until so many cells are free."""
        while len(self._free) < count:
            idle = [slot for slot in self._slots if not slot.running and slot.tokens]
            if not idle:
                return False
            self._truncate(min(idle, key=lambda slot: slot.used), 0)
        return True

    def room(self) -> int:
        """Cells that are free, or would be without what idle slots keep."""
        held = self._held()
        return len(held) - int(held.sum())

    def forget(self, which: Callable[[Hashable], bool]) -> None:
        """What idle slots keep of these keys."""
        for slot in self._slots:
            if not slot.running and slot.tokens and which(slot.key):
                self._truncate(slot, 0)

    def _held(self) -> npt.NDArray[np.bool_]:
        """The cells of what runs."""
        held = np.zeros(len(self._users), dtype=np.bool_)
        for slot in self._slots:
            if slot.running and slot.cells:
                held[np.frombuffer(slot.cells, dtype=np.int32)] = True
        return held

    def _best(self, key: Hashable, tokens: array[int]) -> tuple[Slot | None, int]:
        best, common = None, 0
        for slot in self._slots:
            if slot.key == key and slot.tokens:
                length = _common(slot.tokens, tokens)
                if length > common or (length == common and best is not None and best.running):
                    best, common = slot, length
        common = min(common, len(tokens) - 1)
        return (best, common) if common >= WORTH_SHARING else (None, 0)

    def _share(self, source: Slot, target: Slot, length: int) -> None:
        self._memory.copy(source.number, target.number, length)
        target.tokens, target.cells = source.tokens[:length], source.cells[:length]
        self._users[np.frombuffer(target.cells, dtype=np.int32)] += 1

    def _truncate(self, slot: Slot, length: int) -> None:
        if len(slot.tokens) <= length:
            return
        self._memory.truncate(slot.number, length)
        gone = np.array(slot.cells[length:], dtype=np.int32)
        self._users[gone] -= 1
        self._free.extend(gone[self._users[gone] == 0].tolist())
        del slot.tokens[length:]
        del slot.cells[length:]


def _common(one: array[int], other: array[int]) -> int:
    """The length of the common beginning."""
    length = min(len(one), len(other))
    if not length or one[0] != other[0]:
        return 0
    differ = np.frombuffer(one, dtype=np.int32, count=length) != np.frombuffer(other, dtype=np.int32, count=length)
    at = int(differ.argmax())
    return at if differ[at] else length

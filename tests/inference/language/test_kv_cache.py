"""Slots and cells against a plain model of what llama.cpp holds: each cell has a position, a token, and its users."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference.language.kv_cache import WORTH_SHARING, KvCache, Slot
from tests.depth import examples

CELLS, SLOTS = 96, 4
KEYS = (("", "alice"), ("", "bob"), ("law", "alice"))


@dataclass
class Cell:
    position: int
    token: int
    key: Hashable
    users: set[int] = field(default_factory=set)


class Memory:
    """What llama.cpp does with its cells, told as its header tells it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.cells: list[Cell] = []

    def compute(self, sequence: int, tokens: Sequence[int], key: Hashable) -> None:
        start = len(self.of(sequence))
        self.cells += [Cell(start + at, token, key, {sequence}) for at, token in enumerate(tokens)]
        assert len(self.cells) <= self.capacity, "llama.cpp finds no room for this step"

    def truncate(self, sequence: int, length: int) -> None:
        for cell in self.cells:
            if cell.position >= length:
                cell.users.discard(sequence)
        self.cells = [cell for cell in self.cells if cell.users]

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.of(target), "the target would have two tokens at one position"
        for cell in self.cells:
            if source in cell.users and cell.position < length:
                cell.users.add(target)

    def of(self, sequence: int) -> list[Cell]:
        return sorted((cell for cell in self.cells if sequence in cell.users), key=lambda cell: cell.position)

    def tokens(self, sequence: int) -> list[int]:
        return [cell.token for cell in self.of(sequence)]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# Two long beginnings, one of which parts from the other, so that sequences share much, little and nothing.
BEGINNING = tuple(range(40))
FORKED = (*range(20), *range(100, 120))
PROMPTS = st.builds(
    lambda beginning, length, rest: (*beginning[:length], *rest),
    st.sampled_from((BEGINNING, FORKED)),
    st.integers(0, 40),
    st.lists(st.integers(200, 202), max_size=20),
).filter(len)


class KvCacheMachine(RuleBasedStateMachine):
    """Sequences come, are computed in pieces, go, and come back with more."""

    @initialize()
    def start(self) -> None:
        self.memory = Memory(CELLS)
        self.cache = KvCache(self.memory, SLOTS, CELLS)
        self.running: dict[int, tuple[Slot, list[int], Hashable]] = {}
        self.idle: dict[int, Hashable] = {}  # number of the slot → key, the longest unused first
        self.held: dict[int, list[int]] = {}

    @precondition(lambda self: len(self.running) < SLOTS)
    @rule(key=st.sampled_from(KEYS), prompt=PROMPTS)
    def take(self, key: Hashable, prompt: tuple[int, ...]) -> None:
        tokens = array("i", prompt)
        best = max(
            (common(self.memory.tokens(number), prompt) for number, other in self._keys() if other == key), default=0
        )
        best = min(best, len(prompt) - 1)
        fits, room = self.cache.fits(key, tokens), self.cache.room()
        before = {number: self.memory.tokens(number) for number in self.running}
        slot, found = self.cache.take(key, tokens)
        assert found == (best if best >= WORTH_SHARING else 0)
        assert found < len(prompt)
        assert slot.number not in self.running
        assert self.memory.tokens(slot.number) == list(prompt[:found])
        assert all(cell.key == key for cell in self.memory.of(slot.number))
        assert {number: self.memory.tokens(number) for number in self.running} == before
        self.idle.pop(slot.number, None)
        self.running[slot.number] = (slot, list(prompt), key)
        # Beside what ran before, it takes what it found in idle slots, and what is still to be computed.
        assert fits == (room - self.cache.room() + len(prompt) - found <= room)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), count=st.integers(1, 30))
    def compute(self, data: st.DataObject, count: int) -> None:
        """The next tokens of one that runs, where there is room or can be made; else it is left."""
        slot, tokens, key = self.running[data.draw(st.sampled_from(sorted(self.running)))]
        done = len(slot.tokens)
        piece = tokens[done : done + count] or [data.draw(st.integers(200, 202))]
        if len(tokens) == done:
            tokens += piece
        if self.cache.free < len(piece) and not self._make_room(len(piece)):
            return
        self.cache.append(slot, array("i", piece))
        self.memory.compute(slot.number, piece, key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        slot, _, key = self.running.pop(number)
        self.cache.release(slot)
        self.idle[number] = key

    @rule(count=st.integers(0, CELLS))
    def make_room(self, count: int) -> None:
        self._make_room(count)

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: Hashable) -> None:
        self.cache.forget(lambda other: other == key)
        assert not any(self.memory.of(number) for number, other in self.idle.items() if other == key)

    def _make_room(self, count: int) -> bool:
        """Idle slots are forgotten whole, the longest unused first, no more of them than are needed."""
        held = [number for number in self.idle if self.memory.of(number)]
        running = {number: self.memory.tokens(number) for number in self.running}
        room, enough = self.cache.room(), self.cache.make_room(count)
        gone = [number for number in held if not self.memory.of(number)]
        assert gone == held[: len(gone)]
        assert enough == (count <= room)
        assert enough or gone == held
        assert {number: self.memory.tokens(number) for number in self.running} == running
        return enough

    def _keys(self) -> list[tuple[int, Hashable]]:
        return [(number, key) for number, (_, _, key) in self.running.items()] + list(self.idle.items())

    @invariant()
    def counts_are_llama_cpps(self) -> None:
        if not hasattr(self, "memory"):
            return
        assert len(self.memory.cells) <= CELLS
        assert self.cache.free == CELLS - len(self.memory.cells)
        assert self.cache.idle_slots == SLOTS - len(self.running)
        assert self.cache.room() == CELLS - sum(not cell.users.isdisjoint(self.running) for cell in self.memory.cells)
        for number, (slot, tokens, _) in self.running.items():
            assert self.memory.tokens(number) == list(slot.tokens) == tokens[: len(slot.tokens)]


KvCacheMachine.TestCase.settings = settings(max_examples=examples(20), stateful_step_count=40, deadline=None)
test_slots_hold_what_llama_cpp_holds_whatever_comes_and_goes = KvCacheMachine.TestCase


class TestWhichSlot:
    """Of two slots with 64 cells, computed at once."""

    def cache(self, slots: int = 2) -> KvCache:
        return KvCache(Memory(64), slots, 64)

    def run(self, cache: KvCache, tokens: Sequence[int], key: Hashable = "") -> tuple[Slot, int]:
        slot, found = cache.take(key, array("i", tokens))
        cache.append(slot, array("i", tokens[found:]))
        return slot, found

    def test_what_goes_on_where_another_ended_takes_its_slot(self) -> None:
        cache = self.cache()
        first, _ = self.run(cache, range(20))
        cache.release(first)
        assert self.run(cache, range(30)) == (first, 20)
        assert cache.free == 64 - 30

    def test_a_beginning_that_another_one_ends_elsewhere_is_shared_and_both_are_kept(self) -> None:
        cache = self.cache()
        first, _ = self.run(cache, range(30))
        cache.release(first)
        second, found = self.run(cache, [*range(20), 99])
        assert (second is first, found) == (False, 20)
        assert cache.free == 64 - 30 - 1
        assert list(first.tokens) == list(range(30))

    def test_what_is_kept_is_bounded_but_for_the_last_one(self) -> None:
        cache = KvCache(Memory(64), 4, 64, kept=24)
        slots = []
        for begin in (100, 200, 300):
            slot, _ = self.run(cache, range(begin, begin + 12))
            cache.release(slot)
            slots.append(slot)
        assert [len(slot.tokens) for slot in slots] == [0, 12, 12]
        running, _ = self.run(cache, range(400, 410))
        long, _ = self.run(cache, range(500, 530))
        cache.release(long)
        assert [len(slot.tokens) for slot in (running, long)] == [10, 30]
        assert cache.free == 64 - 40

    def test_a_beginning_that_several_keep_counts_once(self) -> None:
        cache = KvCache(Memory(64), 4, 64, kept=24)
        slots = [self.run(cache, [*range(20), 100 + end])[0] for end in range(3)]
        for slot in slots:
            cache.release(slot)
        assert [len(slot.tokens) for slot in slots] == [21, 21, 21]

    def test_a_beginning_is_shared_with_one_that_still_runs(self) -> None:
        cache = self.cache()
        first, _ = self.run(cache, range(30))
        assert self.run(cache, range(30))[1] == 29
        assert cache.free == 64 - 30 - 1
        cache.release(first)
        assert cache.make_room(34)
        assert not cache.make_room(35)  # the other one still uses the 29

    def test_fewer_tokens_than_are_worth_it_are_computed_again(self) -> None:
        cache = self.cache()
        first, _ = self.run(cache, range(30))
        cache.release(first)
        assert self.run(cache, [*range(WORTH_SHARING - 1), 99])[1] == 0

    def test_the_very_same_prompt_leaves_its_last_token_to_compute(self) -> None:
        cache = self.cache(slots=1)
        first, _ = self.run(cache, range(30))
        cache.release(first)
        assert self.run(cache, range(30)) == (first, 29)

    def test_an_empty_slot_is_taken_before_one_that_keeps_something(self) -> None:
        cache = self.cache(slots=3)
        kept = [self.run(cache, [number] * 20)[0] for number in (1, 2)]
        for slot in kept:
            cache.release(slot)
        assert self.run(cache, [3] * 20)[0] not in kept
        assert self.run(cache, [4] * 20)[0] is kept[0]  # the longest unused

"""Continuous batching: which tokens are computed in the next step, of which sequences, and what came of it.

    put ─→ lanes ─→ admitted to a slot ─→ step: those that decode first, one token each; prompts fill the rest of the
            ↑             │                     chunk; one adapter a step, in turns
            └── back ─────┘ no room left, or a lane without a slot: its tokens are kept, and computed again later

A sequence is a list of tokens of which the first so many are computed; a prompt, a token just chosen and one that comes
back after it had to make room are all the same case. Everything runs on the engine's thread. Knows no frames, no text
of a request and no connection; what a step made goes out as Events.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from inference.errors import ComputeFailed
from inference.language.constraint import Matcher
from inference.language.kv_cache import KvCache, Slot
from inference.language.lanes import Lanes
from inference.language.llama import Context, Vocabulary
from inference.language.requests import Logprob
from inference.language.sampling import Sampler, choose, logprob
from inference.language.stops import Text

End = Literal["stop", "length", "cancelled", "late", "failed"]

PATIENCE_STEPS: Final = 16  # that a lane without any slot waits before another one's youngest makes room
MOST_SPARED_STEPS: Final = 32  # that one which made room is spared from doing so again


@dataclass(slots=True)
class Flow:
    """How many pieces of a request may still be sent before its reader asks for more; shared by its choices."""

    left: float = float("inf")


@dataclass(eq=False, slots=True)
class Sequence:
    """One choice of one request."""

    owner: Any  # whoever put it knows it again by this
    index: int
    lane: Hashable
    tokens: array[int]  # the prompt, then what was chosen
    most: int  # tokens in all, at which it ends
    sampler: Sampler
    text: Text
    adapter: str = ""
    scope: Hashable = ""  # of the prefix cache
    logprobs: int | None = None
    matcher: Matcher | None = None
    ignore_end: bool = False
    deadline: float = float("inf")
    flow: Flow = field(default_factory=Flow)
    leader: Sequence | None = None  # whose prompt it waits for, to share it
    cancelled: bool = False
    # what became of it
    prompt_tokens: int = 0
    cached_tokens: int = 0
    slot: Slot | None = None
    computed: int = 0
    came: float = 0.0
    began: float | None = None
    first: float | None = None
    ended: float | None = None
    spared_until: int = 0

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def key(self) -> Hashable:
        return (self.adapter, self.scope)

    @property
    def made(self) -> int:
        return len(self.tokens) - self.prompt_tokens


@dataclass(frozen=True, slots=True)
class Event:
    """A token of a sequence, or with `end` its end; both at once for the last one."""

    sequence: Sequence
    text: str
    logprob: Logprob | None = None
    end: End | None = None


class Scheduler:
    """All sequences of one context."""

    def __init__(self, context: Context, vocabulary: Vocabulary, kept: int | None = None) -> None:
        self._context, self._vocabulary = context, vocabulary
        self.cache = KvCache(context, context.sequences, context.cells, kept)
        self._lanes: Lanes[Sequence] = Lanes()
        self._running: list[Sequence] = []
        self._adapters: dict[str, Any] = {"": None}
        self._adapter = ""
        self._hungry: dict[Hashable, int] = {}  # lanes that wait without a slot, since which step
        self._events: list[Event] = []  # not told yet: a step that a defect ends tells them by `fail`
        self.computed = False
        self.steps = self.tokens_in = self.tokens_out = 0

    @property
    def waiting(self) -> int:
        return self._lanes.count

    @property
    def running(self) -> int:
        return len(self._running)

    def put(self, sequence: Sequence) -> None:
        sequence.came = time.monotonic()
        self._lanes.enter(sequence)

    def attach(self, name: str, adapter: Any) -> None:
        self._adapters[name] = adapter

    def detach(self, name: str) -> Any:
        """No sequence of it may be here any more; nor is what was computed with it."""
        if self._adapter == name:
            self._use("")
        self.cache.forget(lambda key: isinstance(key, tuple) and key[0] == name)
        return self._adapters.pop(name)

    def uses(self, adapter: str) -> bool:
        return any(sequence.adapter == adapter for sequence in (*self._running, *self._lanes))

    def step(self) -> list[Event]:
        """One step of the engine; a failure of the context ends every running sequence, and the events say so.

        `computed` says afterwards whether there was anything to do: not where all wait for their readers.
        """
        self.steps += 1
        self._reap()
        self._admit()
        try:
            rows = self._fill(self._turn())
            self.computed = self._context.filled > 0
            if self.computed:
                self._compute(rows)
        except ComputeFailed:
            for sequence in list(self._running):
                self._end(sequence, "failed")
            self.cache.forget(lambda _: True)  # what was to be computed is not there
        return self._told()

    def fail(self) -> list[Event]:
        """After a step that a defect of ours ended: the end of all that run or wait, so that nobody waits for ever."""
        for sequence in (*self._running, *self._lanes):
            self._end(sequence, "failed")
        self._context.drop()
        self.cache.forget(lambda _: True)
        return self._told()

    def _told(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # --- who runs ---

    def _reap(self) -> None:
        """Those that nobody waits for any more, and those that are late."""
        now = time.monotonic()
        gone = [s for s in (*self._running, *self._lanes) if s.cancelled or s.deadline < now]
        for sequence in gone:
            self._end(sequence, "cancelled" if sequence.cancelled else "late")

    def _admit(self) -> None:
        while (sequence := self._lanes.next(self._may_begin)) is not None:
            if not self.cache.idle_slots and not self._yield_slot(sequence.lane):
                return
            while self._running and not self.cache.fits(sequence.key, sequence.tokens):
                if not self._yield_behind():
                    return
            self._lanes.take(sequence)
            self._hungry.pop(sequence.lane, None)
            self._running.append(sequence)
            sequence.slot, sequence.computed = self.cache.take(sequence.key, sequence.tokens)
            if sequence.began is None:
                sequence.began, sequence.cached_tokens = time.monotonic(), sequence.computed

    def _may_begin(self, sequence: Sequence) -> bool:
        """Not where its reader is behind, nor while another choice still computes the prompt that it will share."""
        leader = sequence.leader
        waits = leader is not None and leader.first is None and leader.ended is None
        return not waits and self._may_run(sequence)

    def _yield_slot(self, lane: Hashable) -> bool:
        """One whose reader is behind makes way; a lane that has had no slot for a while takes one of the lane that has
        the most."""
        if self._yield_behind():
            return True
        held: dict[Hashable, list[Sequence]] = {}
        for sequence in self._running:
            held.setdefault(sequence.lane, []).append(sequence)
        if lane in held:
            return False
        if self.steps - self._hungry.setdefault(lane, self.steps) < PATIENCE_STEPS:
            return False
        most = max(held.values(), key=len)
        able = [sequence for sequence in most if sequence.spared_until <= self.steps]
        if len(most) < 2 or not able:
            return False
        self._make_way(able[-1])
        return True

    def _yield_behind(self) -> bool:
        behind = [sequence for sequence in self._running if not self._may_run(sequence)]
        if behind:
            self._make_way(behind[-1])
        return bool(behind)

    def _make_way(self, sequence: Sequence) -> None:
        """Back into its lane with its tokens; what is computed stays in its slot while there is room."""
        self._running.remove(sequence)
        self._leave_slot(sequence)
        sequence.spared_until = self.steps + MOST_SPARED_STEPS
        self._lanes.back(sequence)

    def _leave_slot(self, sequence: Sequence) -> None:
        if sequence.slot is not None:
            self.cache.release(sequence.slot)
            sequence.slot, sequence.computed = None, 0

    # --- what is computed ---

    def _may_run(self, sequence: Sequence) -> bool:
        return sequence.flow.left > 0 or sequence.cancelled

    def _turn(self) -> list[Sequence]:
        """The running sequences of the adapter whose turn it is: llama.cpp has one adapter a step."""
        able = [sequence for sequence in self._running if self._may_run(sequence)]
        names = sorted({sequence.adapter for sequence in able})
        if not names:
            return []
        later = [name for name in names if name > self._adapter]
        self._use((later or names)[0] if len(names) > 1 else names[0])
        return [sequence for sequence in able if sequence.adapter == self._adapter]

    def _use(self, adapter: str) -> None:
        if adapter != self._adapter:
            self._context.use(self._adapters[adapter])
            self._adapter = adapter

    def _fill(self, group: Iterable[Sequence]) -> list[Sequence]:
        """Adds the step's tokens to the context; those whose next token is wanted, in the order of their rows."""
        decoding: list[Sequence] = []
        prompts: list[Sequence] = []
        for sequence in group:
            (decoding if len(sequence.tokens) - sequence.computed == 1 and sequence.made else prompts).append(sequence)
        rows = [sequence for sequence in decoding if self._add(sequence, 1)]
        if len(prompts) > 1:
            prompts.sort(key=lambda sequence: self._lanes.served(sequence.lane))
        for sequence in prompts:
            if sequence.slot is None:  # it had to make room for one before it
                continue
            count = min(len(sequence.tokens) - sequence.computed, self._context.chunk - self._context.filled)
            if count and self._add(sequence, count) and sequence.computed == len(sequence.tokens):
                rows.append(sequence)
        return [sequence for sequence in rows if sequence.slot is not None]

    def _add(self, sequence: Sequence, count: int) -> bool:
        slot = sequence.slot
        if slot is None or self._context.filled + count > self._context.chunk:
            return False
        if self.cache.free < count and not self._found_room(sequence, count):
            return False
        start = sequence.computed
        tokens = sequence.tokens[start : start + count]
        last = start + count == len(sequence.tokens)
        if count == 1 and last:
            self._context.add_one(slot.number, tokens[0], start)
        else:
            self._context.add(slot.number, tokens, start, wanted=last)
        self.cache.append(slot, tokens)
        sequence.computed = start + count
        self._lanes.charge(sequence.lane, count)
        return True

    def _found_room(self, sequence: Sequence, count: int) -> bool:
        """Kept beginnings go first, then the youngest sequence that has nothing in this step yet, at last this one."""
        while not self.cache.make_room(count):
            able = [s for s in self._running if s is not sequence and s.slot and s.computed == len(s.slot.tokens)]
            able = [s for s in able if len(s.tokens) > s.computed]
            victim = able[-1] if able else sequence
            self._make_way(victim)
            if victim is sequence:
                return False
        return True

    def _compute(self, rows: list[Sequence]) -> None:
        self.tokens_in += self._context.filled
        logits = self._context.decode()
        if not rows:
            return
        chosen = choose([sequence.sampler for sequence in rows], logits)
        now = time.monotonic()
        for row, (sequence, token) in enumerate(zip(rows, chosen, strict=True)):
            self._chosen(sequence, token, logits[row], now)

    def _chosen(self, sequence: Sequence, token: int, row: Any, now: float) -> None:
        if sequence.first is None:
            sequence.first = now
        sequence.tokens.append(token)
        self.tokens_out += 1
        if sequence.matcher is not None and sequence.matcher.failed:
            self._end(sequence, "failed")
        elif token in self._vocabulary.ends and not sequence.ignore_end:
            self._end(sequence, "stop")
        else:
            self._said(sequence, token, row)

    def _said(self, sequence: Sequence, token: int, row: Any) -> None:
        told = None
        if sequence.logprobs is not None:
            told = logprob(row, token, sequence.logprobs, self._vocabulary)
        text = sequence.text.add(self._vocabulary.piece(token))
        if text or told is not None:
            sequence.flow.left -= 1
        if sequence.text.stopped or (sequence.matcher is not None and sequence.matcher.ended):
            self._end(sequence, "stop", text, told)
        elif len(sequence.tokens) >= sequence.most:
            self._end(sequence, "length", text, told)
        else:
            self._events.append(Event(sequence, text, told))

    def _end(self, sequence: Sequence, end: End, text: str = "", told: Logprob | None = None) -> None:
        sequence.ended = time.monotonic()
        if sequence in self._running:
            self._running.remove(sequence)
            self._leave_slot(sequence)
        else:
            self._lanes.take(sequence)
            self._hungry.pop(sequence.lane, None)
        self._lanes.leave(sequence)
        self._events.append(Event(sequence, text + sequence.text.finish(), told, end))

"""The engine's thread: it alone touches weights and context, takes orders between two steps, and hands on what came.

    order(…) ─→ queue ─→ [ orders · one step ] ─→ loop.call_soon_threadsafe(deliver, events)

Whoever hears a token takes a core from the next step, so tokens of quick steps are handed on together, a first token
and an end at once. llama_decode releases the GIL, so the event loop goes on meanwhile. Nothing to do is a wait on the
queue, without a timer; where all wait for slow readers, it looks again every WAIT_SECONDS, since deadlines pass. A
defect in a step ends what is there, each with an end of its own, and the thread goes on. Knows no frames.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from inference.language.llama import Weights
from inference.language.scheduler import Event, Scheduler, Sequence

WAIT_SECONDS: Final = 0.05
TOGETHER_SECONDS: Final = 0.02
CHUNK: Final = 512  # tokens a step; with 64, mixed lengths were a quarter slower

Order = Callable[[], None]


class Engine(threading.Thread):
    """One language model that computes. Its public methods may be called from any thread."""

    def __init__(
        self,
        weights: Weights,
        loop: Any,
        deliver: Callable[[list[Event]], None],
        *,
        slots: int,
        cells: int,
        threads: int,
    ) -> None:
        super().__init__(name="language", daemon=True)
        self.weights = weights
        self.context = weights.context(sequences=slots, cells=cells, chunk=min(CHUNK, cells), threads=threads)
        self.scheduler = Scheduler(self.context, weights.vocabulary, weights.kept_tokens)
        self._loop, self._deliver = loop, deliver
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._ended = False
        self._came: list[Event] = []  # and not handed on yet
        self._handed_at = 0.0

    def put(self, sequences: list[Sequence]) -> None:
        def put() -> None:
            for sequence in sequences:
                self.scheduler.put(sequence)

        self.order(put)

    def cancel(self, sequences: list[Sequence]) -> None:
        """Each ends with the next step, and its end says what was made by then."""

        def cancel() -> None:
            for sequence in sequences:
                sequence.cancelled = True

        self.order(cancel)

    def order(self, order: Order) -> None:
        """Run on the engine's thread, between two steps."""
        self._orders.put(order)

    def end(self, freed: Callable[[], None]) -> None:
        """Frees everything; `freed` is called on the loop's thread. Nothing may be in flight."""

        def end() -> None:
            self._ended = True
            self.context.free()
            self.weights.free()
            self._loop.call_soon_threadsafe(freed)

        self.order(end)

    def run(self) -> None:
        while not self._ended:
            self._take_orders()
            if self._ended:
                return
            try:
                events = self.scheduler.step()
            except Exception as failure:  # whatever it is, nobody may be left waiting
                self._tell(failure)
                events = self.scheduler.fail()
            self._came += events
            if self._is_due(events):
                self._loop.call_soon_threadsafe(self._deliver, self._came)
                self._came = []

    def _is_due(self, events: list[Event]) -> bool:
        now = time.monotonic()
        if not self._came:
            return False
        late = now - self._handed_at >= TOGETHER_SECONDS or not self.scheduler.computed
        if late or any(event.end is not None or event.sequence.made == 1 for event in events):
            self._handed_at = now
            return True
        return False

    def _take_orders(self) -> None:
        """All that are there; waits for one where there is nothing to compute."""
        scheduler = self.scheduler
        present = scheduler.running or scheduler.waiting
        try:
            if not present:
                self._do(self._orders.get())
            elif not scheduler.computed:
                self._do(self._orders.get(timeout=WAIT_SECONDS))
            while True:
                self._do(self._orders.get_nowait())
        except queue.Empty:
            pass

    def _do(self, order: Order) -> None:
        try:
            order()
        except Exception as failure:  # one order's defect is not the next one's
            self._tell(failure)

    def _tell(self, failure: Exception) -> None:
        told = {"message": "the engine's thread failed", "exception": failure}
        self._loop.call_soon_threadsafe(self._loop.call_exception_handler, told)

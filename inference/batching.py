"""What waits becomes the next batch: no timer, so an idle cell adds no wait and a busy one batches by itself.

    put ─→ Model.waiting ─→ take (one key, fair by principal) ─→ compute ─→ one answer per request
             │  bounded, else queue_full                          │  a failing batch is computed again one by one,
             └─ deadline passed → deadline_exceeded                └─ so a bad request never fails its neighbours

`Scheduler` lives on the event loop's thread; `compute` runs in the one worker thread, so that the loop keeps reading.
Where a model's last batches were so quick that the hop to the thread would cost more than the computation (50 µs
against 10 for an MLP), it is run at once on the loop, never expected to hold it for more than INLINE_SECONDS.
Knows nothing of sockets: a request carries the link that its answer goes to.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from inference.compute import Batch, compute
from inference.errors import DeadlineExceeded, InferenceError, QueueFull
from inference.requests import RAW, Model, Request

INLINE_SECONDS: Final = 0.0005
SWEEP_SECONDS: Final = 0.05
MAX_REQUESTS: Final = 4096
MAX_WAITING_BYTES: Final = 256 << 20


class Loop(Protocol):
    """The three things needed of an event loop."""

    def call_soon(self, callback: Callable[[], None]) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[[], None]) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> object: ...


class Worker(threading.Thread):
    """The one thread that computes when it takes long."""

    def __init__(self, loop: Loop, done: Callable[[Batch], None]) -> None:
        super().__init__(name="compute", daemon=True)
        self._loop, self._done = loop, done
        self._jobs: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()

    def submit(self, batch: Batch) -> None:
        self._jobs.put(batch)

    def stop(self) -> None:
        self._jobs.put(None)

    def run(self) -> None:
        while (batch := self._jobs.get()) is not None:
            compute(batch)
            self._loop.call_soon_threadsafe(functools.partial(self._done, batch))


class Scheduler:
    """All models of a cell, one computation at a time. Every method is for the event loop's thread."""

    def __init__(self, loop: Loop, *, max_requests: int = MAX_REQUESTS, inline_seconds: float = INLINE_SECONDS) -> None:
        self._loop = loop
        self._max_requests, self._inline_seconds = max_requests, inline_seconds
        self._turns: deque[Model] = deque()  # models with something waiting, one place each
        self._worker = Worker(loop, self._computed)
        self._worker.start()
        self._busy: Model | None = None  # whose batch the worker has
        self._scheduled = self._sweeping = False
        self.count = self.waiting_bytes = 0
        self.requests = self.errors = self.batches = self.items = 0

    def put(self, request: Request) -> None:
        """Into the queue, or an error straight back."""
        model = request.plan.model
        if self.count >= self._max_requests or self.waiting_bytes + len(request.body) > MAX_WAITING_BYTES:
            self.errors += 1
            request.link.refuse(request.number, QueueFull(f"{self.count} requests wait already"))
            return
        if not model.waiting.count:
            self._turns.append(model)
        model.waiting.put(request)
        request.link.waiting[request.number] = request
        self.count += 1
        self.waiting_bytes += len(request.body)
        if self._busy is None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next)

    def drop(self, request: Request) -> None:
        """Cancelled, or nobody is there any more: what is waiting leaves, what computes is thrown away after."""
        if not request.done:
            self._finish(request)

    def retire(self, model: Model, freed: Callable[[], None]) -> None:
        """`freed` is called when everything that was taken in has been answered."""
        model.retired = freed
        self._free_if_idle(model)

    def stop(self) -> None:
        self._worker.stop()

    def _next(self) -> None:
        self._scheduled = False
        now = time.monotonic()
        while self._turns and self._busy is None:
            batch = self._take(now)
            if batch is None:
                continue
            if batch.requests[0].plan.key is not RAW and batch.model.item_seconds * batch.items < self._inline_seconds:
                compute(batch)
                self._settle(batch)
                if self._turns:  # what arrived meanwhile is read first: it belongs to the next batch
                    self._scheduled = True
                    self._loop.call_soon(self._next)
                return
            self._busy = batch.model
            self._worker.submit(batch)
            if not self._sweeping:
                self._sweeping = True
                self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _take(self, now: float) -> Batch | None:
        model = self._turns.popleft()
        requests = model.waiting.take(model.most)
        if model.waiting.count:
            self._turns.append(model)
        live: list[Request] = []
        for request in requests:
            if request.deadline < now:
                self._expire(request)
            else:
                live.append(request)
        if not live:
            self._free_if_idle(model)
            return None
        return Batch(model, live, items=sum([request.plan.items for request in live]))

    def _computed(self, batch: Batch) -> None:
        self._busy = None
        self._settle(batch)
        self._next()

    def _settle(self, batch: Batch) -> None:
        model = batch.model
        cost = batch.seconds / max(batch.items, 1)
        model.item_seconds = cost if cost > model.item_seconds else 0.5 * (model.item_seconds + cost)
        self.batches += 1
        self.items += batch.items
        self.requests += len(batch.requests)
        model.requests += len(batch.requests)
        for request, outcome in zip(batch.requests, batch.outcomes, strict=True):
            if request.done:
                continue
            self._finish(request)
            if isinstance(outcome, InferenceError):
                self.errors += 1
                request.link.refuse(request.number, outcome)
            else:
                request.link.answer(request, outcome)
        if model.retired is not None:
            self._free_if_idle(model)

    def _finish(self, request: Request) -> None:
        request.done = True
        self.count -= 1
        self.waiting_bytes -= len(request.body)
        request.link.waiting.pop(request.number, None)

    def _expire(self, request: Request) -> None:
        if not request.done:
            self._finish(request)
            self.errors += 1
            request.link.refuse(request.number, DeadlineExceeded("the deadline passed while the request waited"))

    def _sweep(self) -> None:
        """While a long computation runs, those who wait hear in time that it is too late for them."""
        self._sweeping = self._busy is not None
        if self._sweeping:
            now = time.monotonic()
            for model in self._turns:
                for request in model.waiting.all():
                    if request.deadline < now:
                        self._expire(request)
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _free_if_idle(self, model: Model) -> None:
        if model.retired is not None and not model.waiting.count and self._busy is not model:
            freed, model.retired = model.retired, None
            freed()

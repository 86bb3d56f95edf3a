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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from inference.decode import decode
from inference.engine import ArrayEngine
from inference.errors import ComputeFailed, DeadlineExceeded, InferenceError, InputRefused, ModelUnknown, QueueFull
from inference.protocol import (
    ANSWER,
    HEAD,
    MAX_FRAME_BYTES,
    Array,
    Buffer,
    TensorSpec,
    datatype_of,
    pack_answer,
    pack_answer_outputs,
    pack_tensors,
    padded,
    raw_bytes,
    read_tensor,
)
from inference.signature import Signature

INLINE_SECONDS: Final = 0.0005
RAW_AT_ONCE: Final = 8  # files to decode before the first of them is answered
SWEEP_SECONDS: Final = 0.05
MAX_REQUESTS: Final = 4096
MAX_WAITING_BYTES: Final = 256 << 20
RAW: Final = ("raw",)

Key = tuple[object, ...]


class Link(Protocol):
    """Where answers go: a connection of the cell, or a list in a test."""

    waiting: dict[int, Request]

    def answer(self, request: Request, parts: tuple[Buffer, ...]) -> None: ...

    def refuse(self, number: int, error: InferenceError) -> None: ...


class Loop(Protocol):
    """The three things needed of an event loop."""

    def call_soon(self, callback: Callable[[], None]) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[[], None]) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> object: ...


@dataclass(slots=True, frozen=True)
class Plan:
    """Everything about an infer frame that its header decides; kept, since callers send the same header again."""

    model: Model
    specs: tuple[TensorSpec, ...]
    body_bytes: int
    items: int
    key: Key
    wanted: tuple[str, ...]
    priority: int
    principal: int
    content_type: str | None = None


@dataclass(slots=True, eq=False)
class Request:
    link: Link
    number: int
    plan: Plan
    body: memoryview
    received: float
    deadline: float  # of time.monotonic; infinity when there is none
    done: bool = False  # answered, cancelled or its link is gone


class Waiting:
    """The requests of one model: by priority, within it by turns between principals, within them in order."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[int, deque[Request]]] = {}
        self.count = 0

    def put(self, request: Request) -> None:
        plan = request.plan
        lanes = self._levels.setdefault(plan.priority, {})
        lane = lanes.get(plan.principal)
        if lane is None:
            lane = lanes[plan.principal] = deque()
        lane.append(request)
        self.count += 1

    def take(self, most: int) -> list[Request]:
        """The next batch: the first request that still counts, and others of its key, up to `most` items."""
        batch: list[Request] = []
        items, key = 0, None
        while self._levels:
            level = max(self._levels)
            lanes = self._levels[level]
            stuck: set[int] = set()
            while lanes and len(stuck) < len(lanes):
                principal, lane = next((p, q) for p, q in lanes.items() if p not in stuck)
                alone = len(lanes) == 1
                while lane:
                    request = lane[0]
                    if not request.done:
                        plan = request.plan
                        if key is not None and (plan.key != key or items + plan.items > most):
                            stuck.add(principal)
                            break
                        key = plan.key
                        items += plan.items
                        batch.append(request)
                    lane.popleft()
                    self.count -= 1
                    if not alone:  # the next one's turn
                        break
                if principal in stuck:
                    continue
                del lanes[principal]
                if lane:
                    lanes[principal] = lane  # to the end of the turns
            if lanes:
                return batch
            del self._levels[level]
        return batch

    def all(self) -> list[Request]:
        return [r for lanes in self._levels.values() for lane in lanes.values() for r in lane if not r.done]


@dataclass(eq=False)
class Model:
    """One loaded version and what waits for it."""

    name: str
    version: str
    engine: ArrayEngine
    max_batch: int = 64
    waiting: Waiting = field(default_factory=Waiting)
    item_seconds: float = 1.0  # of a computation, pessimistic: rises at once, falls slowly
    requests: int = 0
    retired: Callable[[], None] | None = None  # called when the last request is out; nothing new is taken in
    answer_heads: dict[Key, tuple[bytes, int]] = field(default_factory=dict)

    @property
    def signature(self) -> Signature:
        return self.engine.signature

    @property
    def most(self) -> int:
        return self.max_batch if self.signature.batched else 1


Outcome = tuple[Buffer, ...] | InferenceError


@dataclass(slots=True)
class Batch:
    model: Model
    requests: list[Request]
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    items: int = 0


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


# --- computing: pure functions of a batch, in the worker thread or, when quick, on the loop ---


def compute(batch: Batch) -> None:
    """Fills the outcomes; whatever goes wrong is an outcome of the request that it concerns."""
    started = time.monotonic()
    try:
        first = batch.requests[0].plan
        outcomes = _decoded(batch, started) if first.key is RAW else _together(batch.model, batch.requests, started)
    except Exception:  # a defect of ours must not leave anybody waiting
        failure = InferenceError("the cell failed on this request")
        outcomes = [failure] * len(batch.requests)
    batch.outcomes = outcomes
    batch.seconds = time.monotonic() - started


def _together(model: Model, requests: Sequence[Request], started: float) -> list[Outcome]:
    plan = requests[0].plan
    try:
        inputs = _joined(plan, requests)
        outputs, seconds = _run(model, inputs, plan.wanted, sum([request.plan.items for request in requests]))
        sizes = [request.plan.items for request in requests]
        return _split(model, plan.wanted, outputs, requests, sizes, started, seconds)
    except InferenceError as error:
        if len(requests) == 1:
            return [error]
        return [outcome for request in requests for outcome in _together(model, [request], started)]


def _joined(plan: Plan, requests: Sequence[Request]) -> dict[str, Array]:
    if len(requests) == 1:
        return {spec.name: read_tensor(spec, requests[0].body) for spec in plan.specs}
    return {spec.name: _joined_tensor(spec.name, index, requests) for index, spec in enumerate(plan.specs)}


def _joined_tensor(name: str, index: int, requests: Sequence[Request]) -> Array:
    first = requests[0].plan.specs[index]
    if first.datatype == "BYTES":
        return np.concatenate([read_tensor(request.plan.specs[index], request.body) for request in requests])
    if len(requests[0].plan.specs) == 1:
        data = b"".join([request.body for request in requests])
    else:
        parts = []
        for request in requests:
            spec = request.plan.specs[index]
            parts.append(request.body[spec.offset : spec.offset + spec.size])
        data = b"".join(parts)
    return np.frombuffer(data, first.dtype).reshape(-1, *first.shape[1:])


def _run(model: Model, inputs: dict[str, Array], wanted: tuple[str, ...], items: int) -> tuple[list[Array], float]:
    """The outputs and the seconds; a request larger than a batch in slices, so that memory stays bounded."""
    started = time.monotonic()
    if items <= model.max_batch or not model.signature.batched:
        outputs = model.engine.run(inputs, wanted)
    else:
        slices = [
            model.engine.run({name: array[at : at + model.max_batch] for name, array in inputs.items()}, wanted)
            for at in range(0, items, model.max_batch)
        ]
        outputs = [np.concatenate(parts) for parts in zip(*slices, strict=True)]
    return outputs, time.monotonic() - started


def _split(
    model: Model,
    wanted: tuple[str, ...],
    outputs: list[Array],
    requests: Sequence[Request],
    sizes: Sequence[int],
    started: float,
    seconds: float,
) -> list[Outcome]:
    items, compute_us = sum(sizes), int(seconds * 1e6)
    if len(requests) == 1:
        times = (_microseconds(started, requests[0]), compute_us, items)
        return [_answer(model, wanted, outputs, requests[0], times)]
    if any(output.ndim == 0 or len(output) != items for output in outputs):
        raise ComputeFailed("the model does not keep the items of a batch apart")
    if len(outputs) == 1 and outputs[0].dtype.kind != "O":
        return _split_plain(model, wanted[0], outputs[0], requests, sizes, started, compute_us)
    answers: list[Outcome] = []
    at = 0
    for request, size in zip(requests, sizes, strict=True):
        times = (_microseconds(started, request), compute_us, items)
        answers.append(_answer(model, wanted, [output[at : at + size] for output in outputs], request, times))
        at += size
    return answers


def _split_plain(
    model: Model,
    name: str,
    output: Array,
    requests: Sequence[Request],
    sizes: Sequence[int],
    started: float,
    compute_us: int,
) -> list[Outcome]:
    """One output of numbers: the usual case, without an array per request."""
    data = memoryview(raw_bytes(output, datatype_of(output)))
    stride, at, items = len(data) // len(output), 0, len(output)
    answers: list[Outcome] = []
    for request, size in zip(requests, sizes, strict=True):
        head, header_length = _answer_head(model, (name,), [output], size)
        header = pack_answer(head, _microseconds(started, request), compute_us, items)
        body = data[at * stride : (at + size) * stride]
        answers.append(_answer_frame(request.number, header, header_length, (body,), len(body)))
        at += size
    return answers


def _answer(
    model: Model, wanted: tuple[str, ...], outputs: list[Array], request: Request, times: tuple[int, int, int]
) -> Outcome:
    described, body = pack_tensors(dict(zip(wanted, outputs, strict=True)))
    header = pack_answer(pack_answer_outputs(described), *times)
    return _answer_frame(request.number, header, len(header), tuple(body), sum(map(len, body)))


def _answer_head(model: Model, wanted: tuple[str, ...], outputs: list[Array], size: int) -> tuple[bytes, int]:
    """The unchanging part of the header of answers with `size` items (0.2 µs instead of 4)."""
    key = (size, *wanted, *[(output.dtype, output.shape[1:]) for output in outputs])
    known = model.answer_heads.get(key)
    if known is None:
        described, _ = pack_tensors({name: output[:size] for name, output in zip(wanted, outputs, strict=True)})
        head = pack_answer_outputs(described)
        if len(model.answer_heads) >= 256:
            model.answer_heads.clear()
        known = model.answer_heads[key] = (head, len(pack_answer(head, 0, 0, 0)))
    return known


def _answer_frame(
    number: int, header: bytes, header_length: int, body: tuple[Buffer, ...], body_bytes: int
) -> tuple[Buffer, ...]:
    header = padded(header)
    length = HEAD.size + len(header) + body_bytes
    if length > MAX_FRAME_BYTES:
        raise ComputeFailed(f"the answer has {length} bytes, more than {MAX_FRAME_BYTES}")
    head = HEAD.pack(length, ANSWER, 0, header_length, number, 0)
    return (head, header, *body)


def _microseconds(started: float, request: Request) -> int:
    return max(0, int((started - request.received) * 1e6))


def _decoded(batch: Batch, started: float) -> list[Outcome]:
    """Raw files: each decoded by itself, then those of one shape together."""
    model = batch.model
    outcomes: dict[Request, Outcome] = {}
    groups: dict[Key, list[tuple[Request, dict[str, Array], int]]] = {}
    for request in batch.requests:
        try:
            inputs = decode(model.signature, request.plan.content_type or "", request.body)
            items = model.signature.check(inputs)
        except InferenceError as error:
            outcomes[request] = error
        except MemoryError:
            outcomes[request] = InputRefused("", "size", "needs more memory than the cell has", "send fewer items")
        else:
            shapes = tuple(array.shape[1:] for array in inputs.values())
            key = (request.plan.wanted, shapes) if model.signature.batched else (request.number,)
            groups.setdefault(key, []).append((request, inputs, items))
    batch.items = 0
    for members in groups.values():
        batch.items += sum(items for _, _, items in members)
        outcomes |= _group(model, members, started)
    return [outcomes[request] for request in batch.requests]


def _group(
    model: Model, members: Sequence[tuple[Request, dict[str, Array], int]], started: float
) -> dict[Request, Outcome]:
    requests, sizes = [request for request, _, _ in members], [items for _, _, items in members]
    wanted = requests[0].plan.wanted
    inputs = members[0][1]
    if len(members) > 1:
        inputs = {name: np.concatenate([given[name] for _, given, _ in members]) for name in inputs}
    try:
        outputs, seconds = _run(model, inputs, wanted, sum(sizes))
        outcomes = _split(model, wanted, outputs, requests, sizes, started, seconds)
    except InferenceError as error:
        if len(members) == 1:
            return {requests[0]: error}
        return {request: out for member in members for request, out in _group(model, [member], started).items()}
    return dict(zip(requests, outcomes, strict=True))


def plan_infer(model: Model, fields: dict[str, object], specs: tuple[TensorSpec, ...], body_bytes: int) -> Plan:
    """What an infer frame's header asks for, checked against the model's signature."""
    signature = model.signature
    if model.retired is not None:
        raise ModelUnknown(f"'{model.name}' is being unloaded")
    wanted = _wanted(signature, fields.get("outputs"))
    priority, principal = (_number(fields.get(name)) for name in ("priority", "principal"))
    content_type = fields.get("content_type")
    if content_type is not None:
        limit = max(1, model.most // RAW_AT_ONCE)  # a raw request counts as so many items, so that few go together
        return Plan(model, (), -1, limit, RAW, wanted, priority, principal, str(content_type))
    items = signature.check_shapes({spec.name: (spec.datatype, spec.shape) for spec in specs})
    specs = tuple(sorted(specs, key=lambda spec: spec.name))
    key: Key = (wanted, *[spec.shape[1:] for spec in specs]) if signature.batched else (wanted, "alone")
    return Plan(model, specs, body_bytes, items, key, wanted, priority, principal)


def _wanted(signature: Signature, outputs: object) -> tuple[str, ...]:
    known = tuple(tensor.name for tensor in signature.outputs)
    if outputs is None:
        return known
    asked = tuple(outputs) if isinstance(outputs, list) else (outputs,)
    if not asked or not all(name in known for name in asked) or len(set(asked)) < len(asked):
        raise InputRefused(
            "/outputs", "outputs", f"wants '{', '.join(map(str, asked))}'", f"expected some of {', '.join(known)}"
        )
    return asked


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else 0

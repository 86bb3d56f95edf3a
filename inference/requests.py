"""A request in a cell: what its header asks for (Plan), itself, what waits in which order, and the model it is for.

Plans are checked against the model's signature once and kept, since callers send the same header again. Knows nothing
of sockets, threads or computing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from inference.engine import ArrayEngine
from inference.errors import InferenceError, InputRefused, ModelUnknown
from inference.protocol import Buffer, TensorSpec
from inference.signature import Signature

RAW_AT_ONCE: Final = 8  # files to decode before the first of them is answered
RAW: Final = ("raw",)

Key = tuple[object, ...]


class Link(Protocol):
    """Where answers go: a connection of the cell, or a list in a test."""

    waiting: dict[int, Request]

    def answer(self, request: Request, parts: tuple[Buffer, ...]) -> None: ...

    def refuse(self, number: int, error: InferenceError) -> None: ...


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
    encoding: Any = None  # of a text encoder: what waits for embeddings (inference/language/encoding.py)
    retired: Callable[[], None] | None = None  # called when the last request is out; nothing new is taken in
    answer_heads: dict[Key, tuple[bytes, int]] = field(default_factory=dict)

    @property
    def signature(self) -> Signature:
        return self.engine.signature

    @property
    def interface(self) -> Signature:
        """What the model takes and gives, whatever its kind."""
        return self.engine.signature

    @property
    def most(self) -> int:
        return self.max_batch if self.signature.batched else 1


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

"""predict(): one prediction, whatever face asked for it. Resolve, allow, limit, read, compute, apply the policy, count.

    principal, name → scope, deployment of the tenant, allowed models → the deployment's rate and concurrency
        → inputs by the face's reader → the tenant's cell → output policy → usage

Every way out is an answer or one of our errors inside the deployment's deadline: a lost engine is 503, never a hang.
Knows no HTTP, no JSON and no database; a face reads and writes, snapshot.py knows what is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from django.conf import settings

from inference.answer import Prediction, predictions, probabilities
from inference.errors import InputRefused
from inference.protocol import Array
from strongroom.access.services import Principal
from strongroom.deployments.client import Answer, EngineLost, Engines, refused
from strongroom.deployments.served import Served
from strongroom.edge.limits import LIMITS
from strongroom.edge.snapshot import DEPLOYMENTS
from strongroom.errors import NotFound
from strongroom.metering.services import METER


@dataclass(frozen=True, slots=True)
class Raw:
    """A file, or rows in JSON, decoded in the cell."""

    content_type: str
    data: bytes


Inputs = dict[str, Array] | Raw

LARGE_BYTES = 256 * 1024
LARGE_NUMBERS = 32 * 1024  # of an answer
HEARSAY_SECONDS = 1.5  # over twice the interval of the generations
POLL_SECONDS = 0.02

_WRITERS = asyncio.Semaphore(2)
ENGINES = Engines(settings.ENVIRONMENT.home_path)


@dataclass(frozen=True, slots=True)
class Result:
    """What came out. A face gets at it under the output policy only: as predictions or as tensors."""

    served: Served
    _outputs: Mapping[str, Array]
    items: int
    queue_us: int
    compute_us: int

    def predictions(self) -> list[Prediction]:
        """Labels and scores, values, vectors: the native API's words."""
        return predictions(self.served.signature, self._outputs, self.served.policy)

    @property
    def is_large(self) -> bool:
        numbers = 0
        for array in self._outputs.values():
            numbers += array.size
        return numbers > LARGE_NUMBERS

    def tensors(self) -> Mapping[str, Array]:
        return self._outputs if self.served.policy is None else limited(self.served, self._outputs)


@dataclass(frozen=True, slots=True)
class Call:
    """A use of a deployment that was let in: it holds a place of the deployment's concurrency until `leave`."""

    principal: Principal
    served: Served
    deadline: float  # of monotonic()

    @property
    def left_ms(self) -> int:
        """Of the deadline, at least 1."""
        return max(1, int((self.deadline - monotonic()) * 1000))

    def leave(self) -> None:
        LIMITS.leave(self.served)

    def count(self, **counts: Any) -> None:
        """Into the usage of this deployment, version and principal."""
        served = self.served
        METER.count(served.tenant, served.deployment, served.engine_version, self.principal.text, **counts)


async def admit(principal: Principal, name: str, *, version: str | None = None, deadline_ms: int | None = None) -> Call:
    """Resolves the deployment and takes a place: what every use of every face goes through. `leave` follows."""
    began = monotonic()
    served = _at_hand(principal, name, version) or await resolve(principal, name, version)
    deadline = began + min(deadline_ms or served.deadline_ms, served.deadline_ms) / 1000
    if ENGINES.ready(served.tenant, served.name, served.engine_version) is None and not _is_loaded(served):
        served = await _settled(served, principal, name, version, deadline)
    LIMITS.enter(served)
    return Call(principal, served, deadline)


async def predict(
    principal: Principal,
    name: str,
    read: Callable[[Served], Inputs],
    *,
    version: str | None = None,
    deadline_ms: int | None = None,
    is_large: bool = False,
) -> Result:
    """`read` turns the face's request into inputs once it is known what they are for; what it raises, it raises.

    A large request is read in a thread, so that the loop goes on with the others.
    """
    call = await admit(principal, name, version=version, deadline_ms=deadline_ms)
    served = call.served
    try:
        inputs = await asyncio.to_thread(read, served) if is_large else read(served)
        answer = await _asked(call, inputs)
    except BaseException:
        call.count(failed=True)
        raise
    finally:
        call.leave()
    items = _items(served, answer.outputs)
    call.count(items=items, compute_us=answer.compute_us, queue_us=answer.queue_us)
    return Result(served, answer.outputs, items, answer.queue_us, answer.compute_us)


async def written(result: Result, write: Callable[[Result], bytes]) -> bytes:
    """What a face writes of a result; of a large one in a thread, two at once, so that the loop and the memory last."""
    if not result.is_large:
        return write(result)
    async with _WRITERS:
        return await asyncio.to_thread(write, result)


def _is_loaded(served: Served) -> bool:
    return ENGINES.is_ready(served.tenant, served.name, served.engine_version)


async def _settled(served: Served, principal: Principal, name: str, version: str | None, deadline: float) -> Served:
    """A version that is not loaded: while it loads, the one before serves on. And where it is gone already because it
    was switched a moment ago, this process hears of that within the time that the generations take."""
    ends = min(monotonic() + HEARSAY_SECONDS, deadline)
    while not _is_loaded(served) and monotonic() < ends:
        if served.before is not None and version is None and _is_loaded(served.before):
            return served.before
        ENGINES.targets.ask(served.tenant, served.name)
        await asyncio.sleep(POLL_SECONDS)
        served = await resolve(principal, name, version)
    return served


def _at_hand(principal: Principal, name: str, version: str | None) -> Served | None:
    """What `resolve` says, where it needs no wait and refuses nothing."""
    if version is not None or principal.allowed_models or "predict" not in principal.scopes:
        return None
    return DEPLOYMENTS.peek(principal.tenant, name)


async def resolve(principal: Principal, name: str, version: str | None = None) -> Served:
    """The deployment, where this principal may see it: NotFound for another tenant's, Denied."""
    principal.require("predict")
    served = DEPLOYMENTS.peek(principal.tenant, name) or await DEPLOYMENTS.find(principal.tenant, name)
    principal.require_model(name)
    if version is not None and version != str(served.version):
        raise NotFound(f"the deployment {name!r} does not serve version {version!r}, it serves {served.version}")
    return served


def _asked(call: Call, inputs: Inputs) -> Awaitable[Answer]:
    """Of the connection at hand, or of whichever there will be."""
    served = call.served
    options: dict[str, Any] = {"deadline_ms": call.left_ms, "principal": call.principal.lane}
    if isinstance(inputs, Raw):
        options |= {"raw": inputs.data, "content_type": inputs.content_type}
    else:
        options["inputs"] = inputs
    engine = ENGINES.ready(served.tenant, served.name, served.engine_version)
    if engine is not None:
        return engine.infer(served.name, served.engine_version, **options)
    return ENGINES.infer(served.tenant, served.name, served.engine_version, **options)


def _items(served: Served, outputs: Mapping[str, Array]) -> int:
    first = next(iter(outputs.values()), None)
    if first is None:
        raise EngineLost("the engine answered without outputs")
    return len(first) if served.signature.batched and first.ndim else 1


def arrays(served: Served, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """Inputs as JSON values → arrays, checked; Invalid with every problem."""
    try:
        return served.signature.arrays(inputs)
    except InputRefused as refusal:
        raise refused(refusal) from None


def check(served: Served, inputs: Mapping[str, Array]) -> None:
    """Invalid where the arrays do not fit the signature."""
    try:
        served.signature.check(inputs)
    except InputRefused as refusal:
        raise refused(refusal) from None


def limited(served: Served, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs as tensors under the deployment's policy: a caller of /v2 learns no more than one of the native API.

    `scores: false` leaves 1 at the winner, `top_k` zeros below the k-th, `decimals` rounds.
    """
    policy = served.policy or {}
    shown = dict(outputs)
    first = next(iter(shown))
    if served.signature.task == "classification" and shown[first].ndim == 2 and shown[first].dtype.kind == "f":
        shown[first] = _best(shown[first], None if policy["scores"] is False else policy["top_k"], policy["scores"])
    if policy["decimals"] is not None:
        shown = {name: _rounded(array, policy["decimals"]) for name, array in shown.items()}
    return shown


def _best(scores: Array, top_k: int | None, with_scores: bool) -> Array:
    if not with_scores:
        winners = np.zeros_like(scores)
        winners[np.arange(len(scores)), scores.argmax(axis=1)] = 1
        return winners
    if not top_k or top_k >= scores.shape[1]:
        return scores
    shares = probabilities(scores)
    below = np.argpartition(-shares, top_k - 1, axis=1)[:, top_k:]
    kept = shares.astype(scores.dtype)
    np.put_along_axis(kept, below, 0, axis=1)
    return kept


def _rounded(array: Array, decimals: int) -> Array:
    return array.round(decimals) if array.dtype.kind == "f" else array

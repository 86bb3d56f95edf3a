"""A batch computed: pure functions, in the worker thread or, when quick, on the loop.

Requests of one key are joined along the batch axis, run, and split again; whatever goes wrong is an outcome of the
request that it concerns. Answers leave here as whole frames, which the requests' links only have to write.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from inference.decode import decode
from inference.errors import ComputeFailed, InferenceError, InputRefused
from inference.protocol import (
    ANSWER,
    HEAD,
    MAX_FRAME_BYTES,
    Array,
    Buffer,
    datatype_of,
    pack_answer,
    pack_answer_outputs,
    pack_tensors,
    padded,
    raw_bytes,
    read_tensor,
)
from inference.requests import RAW, Key, Model, Plan, Request

Outcome = tuple[Buffer, ...] | InferenceError


@dataclass(slots=True)
class Batch:
    model: Model
    requests: list[Request]
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    items: int = 0


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

"""One connection to one cell: many requests in flight on it, answers in any order, each deadline kept.

What a cell sends is checked as strictly as what a stranger sends: a hostile model may have taken it over. The engines'
errors become the platform's here. Knows nothing of which cell serves what (targets.py, client.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from inference.protocol import (
    ANSWER,
    CANCEL,
    DESCRIBE,
    ERROR,
    INFER,
    AnswerReader,
    Array,
    Buffer,
    Frame,
    FrameReader,
    Header,
    ProtocolError,
    TensorSpec,
    datatype_of,
    encode,
    frame_head,
    pack_header,
    pack_tensors,
    raw_bytes,
    read_tensor,
)
from inference.signature import Signature, SignatureInvalid
from strongroom.errors import FieldError, Invalid, LimitReached, StrongroomError, TooLarge, Unavailable, Unsupported

SWEEP_SECONDS = 0.05
GRACE_SECONDS = 0.05  # the cell's own word on a deadline comes first where it can
SMALL_BYTES = 64 << 10
MAX_UNSENT_BYTES = 64 << 20
KEPT_HEADERS = 4096
# An answer becomes Python's lists and JSON in a process that other tenants share: 100 bytes a number, 500 a row.
MOST_NUMBERS, MOST_ROWS, MOST_TEXTS = 4_000_000, 250_000, 250_000


class EngineLost(Unavailable):
    """The cell ended before it answered."""

    code = "engine_lost"


class Answer(NamedTuple):
    """What a cell computed: outputs by name, the times, and how many items it computed together."""

    outputs: dict[str, Array]
    queue_us: int
    compute_us: int
    batch: int


class CellConnection(asyncio.Protocol):
    """One connection to one cell. Requests of one turn of the loop go in one write."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: Any = None
        self._reader, self._answers = FrameReader(), AnswerReader()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Any], float]] = {}
        self._headers: dict[tuple[object, ...], Header] = {}
        self._out: list[Buffer] = []
        self._unsent = 0
        self._paused = self._sweeping = False
        self.lost = False

    # --- asking ---

    def infer(
        self,
        deployment: str,
        version: str,
        inputs: Mapping[str, Array] | None = None,
        *,
        raw: Buffer | None = None,
        content_type: str | None = None,
        outputs: Sequence[str] | None = None,
        deadline_ms: int = 30_000,
        priority: int = 0,
        principal: int = 0,
    ) -> asyncio.Future[Answer]:
        """The answer, or the error at the latest when the deadline passes. EngineLost and LimitReached at once."""
        wanted = None if outputs is None else tuple(outputs)
        what = (deployment, version, wanted, priority, principal)
        if inputs is None:
            return self._ask(INFER, self._raw_header(what, content_type or ""), [raw or b""], deadline_ms)
        if len(inputs) == 1:
            header, body = self._one_tensor(what, inputs)
        else:
            header, body = _with_tensors(what, inputs)
        return self._ask(INFER, header, body, deadline_ms)

    def describe(self, deployment: str, version: str, *, deadline_ms: int = 5_000) -> asyncio.Future[Signature]:
        """What the model takes and gives."""
        return self._ask(DESCRIBE, pack_header({"model": deployment, "version": version}), [], deadline_ms)

    async def prove(self) -> None:
        """Returns once the cell has answered anything: a dying one still takes connections for a moment."""
        with contextlib.suppress(Unavailable):
            try:
                await self.describe("", "")
            except EngineLost:
                raise OSError("the cell ended") from None

    def _ask(self, kind: int, header: Header, body: list[Buffer], deadline_ms: int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        size = sum([len(part) for part in body])
        if self.lost:
            raise EngineLost("the cell ended")
        if self._paused and self._unsent + size > MAX_UNSENT_BYTES:
            raise LimitReached("the engine takes no more requests just now", code="queue_full")
        number = next(self._numbers)
        try:
            head = frame_head(kind, number, max(1, deadline_ms), header, size)
        except ProtocolError as error:
            raise TooLarge(str(error)) from None
        self._waiting[number] = (future, monotonic() + deadline_ms / 1000 + GRACE_SECONDS)
        self._write((*head, *body))
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return future

    def _one_tensor(self, what: tuple[object, ...], inputs: Mapping[str, Array]) -> tuple[Header, list[Buffer]]:
        """The usual request: its header was packed before (0.5 µs instead of 6)."""
        ((name, array),) = inputs.items()
        datatype = datatype_of(array)
        if datatype == "BYTES":
            return _with_tensors(what, inputs)
        key = (*what, name, datatype, array.shape)
        header = self._headers.get(key)
        if header is None:
            header, body = _with_tensors(what, inputs)
            self._keep(key, header)
            return header, body
        return header, [raw_bytes(array, datatype)]

    def _raw_header(self, what: tuple[object, ...], content_type: str) -> Header:
        key = (*what, content_type)
        header = self._headers.get(key)
        if header is None:
            header = pack_header({**_fields(what), "content_type": content_type})
            self._keep(key, header)
        return header

    def _keep(self, key: tuple[object, ...], header: Header) -> None:
        if len(self._headers) >= KEPT_HEADERS:
            self._headers.clear()
        self._headers[key] = header

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(EngineLost("the cell ended before it answered"))

    def close(self) -> None:
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                waiter = self._waiting.pop(frame.request, None)
                if waiter is not None and not waiter[0].done():
                    self._settle(waiter[0], frame)
        except ProtocolError:
            self.close()

    def _settle(self, future: asyncio.Future[Any], frame: Frame) -> None:
        if frame.kind == ANSWER:
            head = self._answers.read(frame.header, frame.body)
            if (excess := _excess(head.outputs)) is not None:
                future.set_exception(excess)
                return
            outputs = {spec.name: read_tensor(spec, frame.body) for spec in head.outputs}
            future.set_result(Answer(outputs, head.queue_us, head.compute_us, head.batch))
        elif frame.kind == ERROR:
            future.set_exception(error_of(frame.fields()))
        elif frame.kind == DESCRIBE:
            future.set_result(_signature(frame.body))
        else:
            future.set_exception(EngineLost("the cell answered with something else"))
            raise ProtocolError(f"kind {frame.kind} is not for the edge")

    def _write(self, parts: Sequence[Buffer]) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += parts
        if self._paused:
            self._unsent += sum([len(part) for part in parts])

    def _flush(self) -> None:
        """All of this turn's frames in one write; a large part by itself, uncopied."""
        out, self._out = self._out, []
        if self.lost:
            return
        if not self._paused:
            self._unsent = 0
        small: list[Buffer] = []
        for part in out:
            if len(part) < SMALL_BYTES:
                small.append(part)
                continue
            self._transport.write(b"".join(small))
            self._transport.write(part)
            small = []
        if small:
            self._transport.write(b"".join(small))

    def _sweep(self) -> None:
        """Gives up what is late, and tells the cell; callers that went away are late as well."""
        now = monotonic()
        for number, (future, deadline) in list(self._waiting.items()):
            if future.done() or deadline < now:
                del self._waiting[number]
                self._write((encode(CANCEL, number, {}),))
                if not future.done():
                    future.set_exception(_late())
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)


def _fields(what: tuple[object, ...]) -> dict[str, Any]:
    deployment, version, wanted, priority, principal = what
    fields: dict[str, Any] = {"model": deployment, "version": version}
    fields |= {"outputs": list(wanted)} if isinstance(wanted, tuple) else {}
    return fields | {"priority": priority, "principal": principal}


def _with_tensors(what: tuple[object, ...], inputs: Mapping[str, Array]) -> tuple[Header, list[Buffer]]:
    described, body = pack_tensors(inputs)
    return pack_header({**_fields(what), "inputs": described}), body


def _excess(outputs: Sequence[TensorSpec]) -> Invalid | None:
    """Why an answer is not taken: an axis of nothing counts as one, since its rows are lists all the same."""
    numbers = 0
    for spec in outputs:
        size = 1
        for axis in spec.shape:
            size *= axis or 1
        numbers += size
        rows = spec.shape[0] if spec.shape else 1
        if rows > MOST_ROWS or (spec.datatype == "BYTES" and size > MOST_TEXTS):
            return _too_much(f"{size} values in {rows} rows")
    return _too_much(f"{numbers} values") if numbers > MOST_NUMBERS else None


def _too_much(told: str) -> Invalid:
    hint = f"at most {MOST_NUMBERS} numbers, {MOST_TEXTS} texts and {MOST_ROWS} rows are answered; send fewer items"
    detail = f"the model answered with {told}; {hint}"
    problem = FieldError("", "answer_too_large", f"gives {told}", hint)
    return Invalid(detail, title="The model's answer is too large", errors=[problem])


def _signature(body: memoryview) -> Signature:
    try:
        return Signature.from_json(json.loads(bytes(body)))
    except (ValueError, SignatureInvalid):
        raise ProtocolError("the cell described no signature") from None


def _late() -> StrongroomError:
    return Unavailable("the deadline passed before the model answered", code="deadline_exceeded")


def error_of(fields: Mapping[str, Any]) -> StrongroomError:
    """An error frame as the platform's error."""
    code, detail = str(fields.get("code")), str(fields.get("message"))
    if code == "invalid_field":
        errors = [_field_error(problem) for problem in fields.get("problems") or ()]
        return Invalid(detail, title="The input does not fit the model", errors=errors)
    if code == "compute_failed":
        return Invalid(detail, title="The model failed on this input", errors=[FieldError("", code, detail, None)])
    if code == "media_type_unsupported":
        return Unsupported(detail)
    if code == "queue_full":
        return LimitReached(detail, code="queue_full")
    if code == "deadline_exceeded":
        return _late()
    if code == "model_loading":
        return Unavailable(detail)
    return StrongroomError("the engine failed on this request")


def _field_error(problem: Any) -> FieldError:
    try:
        path, code, message, hint = problem
    except (TypeError, ValueError):
        raise ProtocolError("a problem without its four parts") from None
    return FieldError(str(path), str(code), str(message), None if hint is None else str(hint))

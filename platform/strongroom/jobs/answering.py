"""How a prediction is answered: by the node's cell, as the front door has it; there is no second engine.

Rows and inputs are one question; the answers are kept sealed in the row, in a file where they are large. A data set
is read by a sandboxed process that sends batches up and seals the lines that come back.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np

from inference.answer import Prediction
from inference.protocol import Array, ProtocolError, pack_tensors, read_tensors, tensor_specs
from inference.signature import InputRefused
from strongroom.deployments.client import refused
from strongroom.deployments.served import Served
from strongroom.errors import Invalid
from strongroom.jobs import endings, outcomes
from strongroom.jobs.cells import cells, served
from strongroom.jobs.endings import Failure
from strongroom.jobs.lease import Lease, Want
from strongroom.jobs.models import Attempt, Job
from strongroom.jobs.moves import write
from strongroom.jobs.packets import Batch, Done, Unreadable
from strongroom.jobs.supervise import Supervision
from strongroom.tenants import scope
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

DEADLINE_MS = 60_000
INLINE_BYTES = 1024 * 1024
BATCH_BYTES = 64 * 1024 * 1024
WAIT_SECONDS = 0.1


def work(job: Job, attempt: Attempt, lease: Lease) -> None:
    """One attempt, in the slot's thread. Moved where the job is no longer ours."""
    with scope.tenant(job.tenant_id, write=False):
        of = served(job.tenant_id, job.spec["deployment"])
        content = None if job.input_artefact is None else json.loads(vault.read_bytes(job.input_artefact))
    try:
        if content is None:
            asker = Asker(of, job, lease)
            Supervision(job, attempt, lease, answer=asker.lines, settle=lambda *ended: _settle_file(of, *ended)).run()
        else:
            _answer(of, job, lease, content)
    finally:
        cells().flush()


@dataclass(slots=True)
class Asker:
    """Asks the cell and keeps the lease meanwhile."""

    of: Served
    job: Job
    lease: Lease
    wanted: Want | None = None

    def ask(self, inputs: Mapping[str, Array] | bytes) -> list[Prediction] | None:
        """None where the job is to end instead: `wanted` says how."""
        principal_id = self.job.created_by_id or UUID(int=0)
        asked = cells().ask(self.of, inputs, principal_id=principal_id, deadline_ms=DEADLINE_MS)
        while (found := _result(asked)) is None:
            if (want := self.lease.beat()) is not None:
                asked.cancel()
                self.wanted = want
                return None
        return found

    def lines(self, batch: Batch) -> tuple[list[dict[str, Any]], bytes] | None:
        """A batch of a data set → its rows' lines, as the one BYTES tensor `predictions`."""
        found = self.ask(_arrays(self.of, batch))
        if found is None:
            return None
        rows = np.empty(len(found), dtype=object)
        rows[:] = [_json(prediction) for prediction in found]
        described, parts = pack_tensors({"predictions": rows})
        return described, b"".join(bytes(part) for part in parts)


def _result(asked: Future[list[Prediction]]) -> list[Prediction] | None:
    try:
        return asked.result(WAIT_SECONDS)
    except NotYet:
        if asked.done():
            raise
        return None


def _answer(of: Served, job: Job, lease: Lease, content: dict[str, Any]) -> None:
    """Rows or inputs: one question to the cell, then the end of the job."""
    asker = Asker(of, job, lease)
    found = asker.ask(_inputs(of, content))
    with scope.tenant(job.tenant_id):
        if asker.wanted == "cancel":
            endings.cancel(job)
        elif found is None:
            endings.hand_back(job, outcome="drained")
        else:
            _settle_found(of, job, lease, found)


def _inputs(of: Served, content: dict[str, Any]) -> Mapping[str, Array] | bytes:
    if "rows" in content:
        return json.dumps(content["rows"]).encode()
    try:
        return of.signature.arrays(content["inputs"])
    except InputRefused as refusal:
        raise refused(refusal) from None


def _settle_found(of: Served, job: Job, lease: Lease, found: list[Prediction]) -> None:
    shown = _finite(found)
    rows = len(shown)
    write(job, lease_until=lease.until, progress={"fraction": 1.0, "items": rows, "items_total": rows})
    lines = b"\n".join(_json(prediction) for prediction in shown) + b"\n"
    if len(lines) <= INLINE_BYTES:
        _succeed(of, job, rows, shown, None)
    else:
        artefact = vault.seal_bytes(job.tenant_id, "output", lines, expires_at=endings.prediction_expiry())
        _succeed(of, job, rows, None, artefact)


def _settle_file(of: Served, job: Job, done: Done, take: outcomes.Output) -> None:
    rows = done.result.get("rows")
    if type(rows) is not int:
        raise outcomes.Refused(Failure("internal", "the job's process gave no count"))
    _succeed(of, job, rows, None, take("output"))


def _succeed(of: Served, job: Job, rows: int, found: list[Prediction] | None, artefact: Artefact | None) -> None:
    named = {"deployment": of.name, "model": of.model, "version": of.version}
    result = {**named, "rows": rows, "predictions": found}
    endings.succeed(job, result, said={**named, "rows": rows}, output_artefact=artefact)


def _arrays(of: Served, batch: Batch) -> dict[str, Array]:
    """The tensors of a batch that the model takes. Unreadable, Invalid."""
    described, body = batch.content.get("inputs"), _body(batch)
    try:
        found = read_tensors(tensor_specs(described), body)
    except ProtocolError as error:
        raise Unreadable(str(error)) from None
    inputs = {name: array for name, array in found.items() if name in of.signature.by_name}
    try:
        of.signature.check(inputs)
    except InputRefused as refusal:
        raise Invalid(
            f"the data set does not fit the model: {refusal.message}", code="dataset_contradicts_spec"
        ) from None
    return inputs


def _body(batch: Batch) -> bytes:
    if not batch.descriptors:
        try:
            return base64.b64decode(batch.content.get("body", ""), validate=True)
        except (ValueError, TypeError):
            raise Unreadable("body") from None
    descriptor = batch.descriptors[0]
    size = os.fstat(descriptor).st_size
    if size > BATCH_BYTES:
        raise Unreadable("body")
    data = bytearray()
    while len(data) < size and (piece := os.pread(descriptor, size - len(data), len(data))):
        data += piece
    return bytes(data)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(prediction: Prediction) -> bytes:
    return json.dumps(_finite(prediction), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

"""Asynchronous predictions: jobs of kind `predict`, shown as `/predictions`; `pred_…` and `job_…` are one uuid.

Rows and inputs are sealed as they are submitted, answered by the node's cell and kept sealed in the row (in a file
where they are large). A data set is read by a sandboxed process that sends batches up and seals the answers.
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
from django.utils import timezone

from inference.answer import Prediction
from inference.protocol import Array, ProtocolError, pack_tensors, read_tensors, tensor_specs
from inference.signature import InputRefused
from strongroom import ids
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments import services as deployments
from strongroom.deployments.client import EngineLost, refused
from strongroom.errors import Conflict, FieldError, Gone, Invalid, NotFound, StrongroomError
from strongroom.jobs import endings, outcomes, services
from strongroom.jobs.cells import Served, cells, served
from strongroom.jobs.endings import Failure
from strongroom.jobs.lease import Lease, Want
from strongroom.jobs.models import Attempt, Job
from strongroom.jobs.moves import write
from strongroom.jobs.packets import Batch, Done, Unreadable
from strongroom.jobs.states import TERMINAL
from strongroom.jobs.supervise import Supervision
from strongroom.rest.bodies import moment, optional_moment
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from training import spec as specs

DEADLINE_MS = 60_000
INLINE_BYTES = 1024 * 1024
BATCH_BYTES = 64 * 1024 * 1024
WAIT_SECONDS = 0.1
CHOICE = ("rows", "inputs", "dataset")


# --- submitting and showing


def submit(actor: Actor, document: object, *, retry_of: UUID | None = None) -> Job:
    """One of rows, inputs, dataset for a deployment. Invalid, NotFound, LimitReached."""
    name, field, content = _read(document)
    deployment = deployments.resolve(name)
    spec: dict[str, Any] = {"kind": "predict", "deployment": name}
    version: DatasetVersion | None = None
    artefact: Artefact | None = None
    if field == "dataset":
        version = _version(content)
        spec["dataset"] = {"name": version.dataset.name, "version": version.number}
    else:
        body = json.dumps({field: content}, allow_nan=False).encode()
        artefact = vault.seal_bytes(scope.tenant_id(), "input", body)
    plan = services.Plan(specs.load(spec), name, version, artefact)
    return services.enqueue(actor, plan, retry_of=retry_of, deployment=deployment)


def resubmit(actor: Actor, job: Job) -> Job:
    """A retry: of a data set only, since rows and inputs are destroyed with the job's end. Gone."""
    if job.dataset_version is None:
        raise Gone("the rows of the prediction are not kept; POST them to /api/v1/predictions again")
    reference = job.spec["dataset"]
    document = {"deployment": job.spec["deployment"], "dataset": f"{reference['name']}@{reference['version']}"}
    return submit(actor, document, retry_of=job.id)


def find(prediction_id: UUID | None) -> Job:
    """The prediction's job. NotFound; Gone once it has expired."""
    job = None if prediction_id is None else Job.objects.filter(id=prediction_id, kind="predict").first()
    if job is None:
        raise NotFound("there is no such prediction")
    if job.expires_at is not None and job.expires_at <= timezone.now():
        raise Gone(f"the prediction expired at {moment(job.expires_at)}; predictions are kept for 24 hours")
    return job


def output(job: Job) -> Artefact:
    """The artefact (kind `output`, JSON Lines) to download. Conflict job_unfinished, NotFound."""
    if job.state not in TERMINAL:
        raise Conflict(
            f"the prediction is {job.state}; its output is there when it has succeeded", code="job_unfinished"
        )
    if job.output_artefact is None:
        raise NotFound("the prediction has no output to download")
    return job.output_artefact


def document(job: Job) -> dict[str, Any]:
    """The body of `/predictions/{id}`."""
    result = job.result or {}
    id = ids.text("pred", job.id)
    shown = None
    if job.result is not None:
        download = f"/api/v1/predictions/{id}/output" if job.output_artefact_id is not None else None
        shown = {"predictions": result["predictions"], "rows": result["rows"], "download": download}
    return {
        "id": id,
        "state": job.state,
        "deployment": job.spec["deployment"],
        "model": result.get("model"),
        "version": result.get("version"),
        "progress": job.progress,
        "output": shown,
        "error": job.error,
        "created_at": moment(job.created_at),
        "finished_at": optional_moment(job.finished_at),
        "expires_at": optional_moment(job.expires_at),
    }


def _read(document: object) -> tuple[str, str, Any]:
    """Deployment, which of the three is set, and its content; Invalid with every problem."""
    if not isinstance(document, Mapping):
        raise Invalid.field("", "must be an object")
    known = ("deployment", *CHOICE)
    problems = [
        FieldError(f"/{name}", "extra_forbidden", "is not a known field", f"known: {', '.join(known)}")
        for name in document
        if name not in known
    ]
    name = document.get("deployment")
    if not isinstance(name, str):
        problems.append(FieldError("/deployment", "required", "must name a deployment"))
    given = [field for field in CHOICE if document.get(field) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "none"
        problems.append(FieldError("", "one_of", f"must have exactly one of {', '.join(CHOICE)}, has {said}"))
    problems += [problem for field in given if (problem := _fault(field, document[field])) is not None]
    if problems:
        raise Invalid.all(problems)
    return str(name), given[0], document[given[0]]


def _fault(field: str, value: Any) -> FieldError | None:
    if field == "rows" and not (isinstance(value, list) and value and all(isinstance(row, dict) for row in value)):
        return FieldError("/rows", "rows", "must be a list of at least one object", '[{"column": value}]')
    if field == "inputs" and not isinstance(value, dict):
        return FieldError("/inputs", "inputs", "must be an object of arrays by input name")
    if field == "dataset" and not isinstance(value, str):
        return FieldError("/dataset", "dataset", "must be a text", "for example 'digits@1'")
    return None


def _version(text: str) -> DatasetVersion:
    name, at, number = text.partition("@")
    if at and not (number.isdecimal() and len(number) < 10):
        raise Invalid.field("/dataset", f"must be NAME or NAME@NUMBER, is {text!r}", hint="for example 'digits@1'")
    return services.ready_version(name, int(number) if at else None, "/dataset")


# --- working


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
    try:
        found = asker.ask(_inputs(of, content))
    except EngineLost:
        with scope.tenant(job.tenant_id):
            endings.lost(job)
        return
    except StrongroomError as error:
        with scope.tenant(job.tenant_id):
            endings.fail(job, outcomes.failure_of(error))
        return
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
    named = {"deployment": of.deployment, "model": of.model, "version": of.version}
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

"""/api/v1/predictions: asynchronous predictions as jobs: submit, list, read, cancel, and the download of an output.

Their bodies hold tenants' inputs and outputs, so they pass the edge, not Django. What such a job is, jobs/services.py
knows; an output is opened here segment by segment, with the data key that the node's agent hands over for this tenant.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from sealing import Identity, SealReader

from strongroom import ids
from strongroom.access.services import Principal
from strongroom.edge import core, database, http, native, principals, watch
from strongroom.errors import Conflict, FieldError, Gone, Invalid, Malformed, NotFound, StrongroomError, Unavailable
from strongroom.idempotency import services as idempotency
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Job
from strongroom.jobs.states import TERMINAL, State
from strongroom.rest import pages
from strongroom.tenants import scope
from strongroom.vault import services as vault

PATH = "/api/v1/predictions"
PIECE_BYTES = 1 << 20
KEY_SECONDS = 5.0
Answered = tuple[int, dict[str, str], bytes]  # status, headers, body: what an Idempotency-Key keeps


async def submit(request: http.Request) -> http.Answer:
    """POST /predictions"""
    principal = await principals.of(request)
    principal.require("predict")
    key = request.headers.get(b"idempotency-key")
    body = await _body(request)
    document = _checked(http.parse(body))
    await core.resolve(principal, document["deployment"])
    if key is None:
        status, headers, answer = await database.run(_submit, principal, document, None)
    else:
        status, headers, answer = await database.run(_submit_once, principal, document, body, key.decode("latin-1"))
    kept = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return await _waited(request, principal, http.Answer(status, answer, kept))


async def listed(request: http.Request) -> http.Answer:
    """GET /predictions"""
    principal = await principals.of(request)
    principal.require("predict")
    fields = request.query(("state", "limit", "cursor"))
    if (state := fields.get("state")) is not None and state not in State.values:
        raise Invalid.field("?state", f"must be one of {', '.join(State.values)}, is {state!r}", code="choice")
    limit = fields.get("limit", str(pages.DEFAULT_LIMIT))
    if not (limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= pages.MAX_LIMIT):
        raise Invalid.field("?limit", f"must be a number from 1 to {pages.MAX_LIMIT}, is {limit!r}", code="range")
    return http.Answer.of(200, await database.run(_page, principal, state, int(limit), fields.get("cursor")))


async def read(request: http.Request, id: str) -> http.Answer:
    """GET /predictions/{id}"""
    principal = await principals.of(request)
    principal.require("predict")
    job_id = _parsed(id)
    document = await database.run(_document, principal, job_id)
    headers: list[tuple[bytes, bytes]] = []
    if (seconds := request.wait_seconds) is not None:
        await watch.WATCHES.until_done(watch.Row("job", job_id), seconds)
        document = await database.run(_document, principal, job_id)
        headers = [watch.APPLIED]
    return http.Answer.of(200, document, headers)


async def cancel(request: http.Request, id: str) -> http.Answer:
    """POST /predictions/{id}/cancel"""
    principal = await principals.of(request)
    principal.require("predict")
    answer = http.Answer.of(202, await database.run(_cancel, principal, _parsed(id)), _location(id))
    return await _waited(request, principal, answer)


async def output(request: http.Request, id: str) -> http.Answer:
    """GET /predictions/{id}/output: JSON Lines, in the data set's order."""
    principal = await principals.of(request)
    principal.require("predict")
    sealed = await database.run(_sealed_output, principal, _parsed(id))
    try:
        header_tag, data_key = await _opened_by_agent(sealed)
        reader = await asyncio.to_thread(sealed.reader, header_tag, data_key)
    except BaseException:
        os.close(sealed.descriptor)
        raise
    headers = [(b"content-length", b"%d" % reader.size_bytes), (b"cache-control", b"no-store")]
    return http.Stream(_pieces(sealed, reader), b"application/jsonl", headers)


# --- submitting


async def _body(request: http.Request) -> bytes:
    if request.media_type not in {"application/json", ""}:
        raise http.unsupported(request.media_type, ["application/json"])
    return await request.body(native.MAX_BODY_BYTES)


def _checked(document: Any) -> dict[str, Any]:
    """Known fields, a deployment, exactly one of rows, inputs, dataset; Invalid with every problem."""
    if not isinstance(document, dict):
        raise Invalid.field("", "must be a JSON object")
    problems: list[FieldError] = []
    if not isinstance(document.get("deployment"), str):
        problems.append(FieldError("/deployment", "missing", "must name a deployment"))
    if not isinstance(document.get("dataset"), str | None):
        problems.append(FieldError("/dataset", "type", "must name a data set version", "for example 'digits@1'"))
    try:
        native.check_fields({key: value for key, value in document.items() if key != "deployment"}, ("dataset",))
    except Invalid as invalid:
        problems += invalid.errors
    if problems:
        raise Invalid.all(problems)
    return document


def _submit(principal: Principal, document: dict[str, Any], taken: idempotency.Taken | None) -> Answered:
    with scope.tenant(principal.tenant_id):
        job = jobs.submit_prediction(principal.actor, document)
        shown = jobs.prediction_document(job)
        headers = {"Location": f"{PATH}/{shown['id']}"}
        body = orjson.dumps(shown)
        if taken is not None:
            taken.finish(202, headers, body)
    return 202, headers, body


def _submit_once(principal: Principal, document: dict[str, Any], body: bytes, key: str) -> Answered:
    mark = idempotency.fingerprint("POST", PATH, body)
    found = idempotency.begin(principal.tenant_id, principal.id, PATH, key, mark)
    if isinstance(found, idempotency.Kept):
        return found.status, found.headers | {"Idempotency-Replayed": "true"}, found.body
    try:
        return _submit(principal, document, found)
    except BaseException:
        found.release()
        raise


async def _waited(request: http.Request, principal: Principal, answer: http.Answer) -> http.Answer:
    """With `Prefer: wait`: 201 once the job is done, else 202, either with the prediction as it is by then."""
    row = watch.row_of(orjson.loads(answer.body))
    if (seconds := request.wait_seconds) is None or row is None:
        return answer
    done = await watch.WATCHES.until_done(row, seconds)
    document = await database.run(_document, principal, row.id)
    return http.Answer.of(201 if done else 202, document, [*answer.headers, watch.APPLIED])


# --- reading; each runs in a thread


def _parsed(id: str) -> UUID:
    if (found := ids.parse("pred", id)) is None:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("there is no such prediction")


def _location(id: str) -> list[tuple[bytes, bytes]]:
    return [(b"location", f"{PATH}/{id}".encode())]


def _find(job_id: UUID) -> Job:
    job = jobs.find(job_id)
    if job.kind != "predict":
        raise _unknown()
    return job


def _document(principal: Principal, job_id: UUID) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id, write=False):
        return jobs.prediction_document(_find(job_id))


def _page(principal: Principal, state: str | None, limit: int, cursor: str | None) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id, write=False):
        rows = jobs.jobs(kind="predict", state=state)
        return pages.page(rows, jobs.prediction_document, limit=limit, cursor=cursor)


def _cancel(principal: Principal, job_id: UUID) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id):
        return jobs.prediction_document(jobs.cancel(principal.actor, _find(job_id)))


# --- the download


@dataclass(frozen=True, slots=True)
class SealedOutput:
    """An output as it lies in the store, with an open descriptor; the key is asked for separately."""

    tenant_id: UUID
    artefact_id: UUID
    stored_bytes: int
    descriptor: int

    def reader(self, header_tag: bytes, data_key: bytes) -> SealReader:
        identity = Identity(self.tenant_id, self.artefact_id, "output")
        return SealReader(
            self.descriptor, data_key, identity, header_tag=header_tag, stored_bytes=self.stored_bytes
        )


def _sealed_output(principal: Principal, job_id: UUID) -> SealedOutput:
    with scope.tenant(principal.tenant_id, write=False):
        job = _find(job_id)
        jobs.prediction_document(job)  # Gone where it has expired
        if job.state not in TERMINAL:
            raise Conflict(f"the prediction is {job.state}; wait for its end", code="job_unfinished")
        artefact = job.output_artefact
        if artefact is None or job.dataset_version_id is None:
            raise NotFound("this prediction has no output to download; its answers are in GET /predictions/{id}")
        if artefact.state != artefact.State.SEALED:
            raise Gone("the output has expired")
        descriptor = vault.sealed_descriptor(artefact)
        return SealedOutput(principal.tenant_id, artefact.id, artefact.stored_bytes, descriptor)


async def _pieces(sealed: SealedOutput, reader: SealReader) -> AsyncGenerator[bytes]:
    try:
        for offset in range(0, reader.size_bytes, PIECE_BYTES):
            length = min(PIECE_BYTES, reader.size_bytes - offset)
            yield bytes(await asyncio.to_thread(reader.read, offset, length))
    finally:
        os.close(sealed.descriptor)

"""/api/v1/predictions: asynchronous predictions as jobs: submit, list, read, cancel, and the download of an output.

Their bodies hold tenants' inputs and outputs, so they pass the edge, not Django. What such a job is, jobs/services.py
knows; an output is opened here segment by segment, with the data key that the node's agent hands over for this tenant.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from sealing import Identity, SealReader
from strongroom import ids
from strongroom.access.services import Principal
from strongroom.deployments.targets import OPEN_SOCKET
from strongroom.edge import core, database, http, limits, native, principals, waiting, watch
from strongroom.errors import Gone, Invalid, NotFound, Unavailable
from strongroom.idempotency import services as idempotency
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Job
from strongroom.jobs.states import State
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
    body = await _body(request, principal)
    document = http.parse(body)
    if isinstance(document, dict) and isinstance(name := document.get("deployment"), str):
        principal.require_model(name)
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
        headers = [waiting.APPLIED]
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
    headers = [(b"content-length", b"%d" % reader.size_bytes)]
    return http.Stream(_pieces(sealed, reader), b"application/jsonl", headers)


# --- submitting


async def _body(request: http.Request, principal: Principal) -> bytes:
    if request.media_type not in {"application/json", ""}:
        raise http.unsupported(request.media_type, ["application/json"])
    return await limits.body(request, principal.tenant_id, native.MAX_BODY_BYTES)


def _submit(principal: Principal, document: Any, taken: idempotency.Taken | None) -> Answered:
    with scope.tenant(principal.tenant_id):
        job = jobs.submit_prediction(principal.actor, document)
        shown = jobs.prediction_document(job)
        headers = {"Location": f"{PATH}/{shown['id']}"}
        body = orjson.dumps(shown)
        if taken is not None:
            taken.finish(202, headers, body)
    return 202, headers, body


def _submit_once(principal: Principal, document: Any, body: bytes, key: str) -> Answered:
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
    row = waiting.row_of(orjson.loads(answer.body))
    if (seconds := request.wait_seconds) is None or row is None:
        return answer
    done = await watch.WATCHES.until_done(row, seconds)
    document = await database.run(_document, principal, row.id)
    return http.Answer.of(201 if done else 202, document, [*answer.headers, waiting.APPLIED])


# --- reading; each runs in a thread


def _parsed(id: str) -> UUID:
    if (found := ids.parse("pred", id)) is None:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("there is no such prediction")


def _location(id: str) -> list[tuple[bytes, bytes]]:
    return [(b"location", f"{PATH}/{id}".encode())]


def _document(principal: Principal, job_id: UUID) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id, write=False):
        return jobs.prediction_document(_found(principal, job_id))


def _found(principal: Principal, job_id: UUID) -> Job:
    """The prediction, which has its deployment's name; NotFound, Gone, Denied where the key is bound to others."""
    job = jobs.prediction(job_id)
    principal.require_model(job.name)
    return job


def _page(principal: Principal, state: str | None, limit: int, cursor: str | None) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id, write=False):
        rows = jobs.predictions() if state is None else jobs.predictions().filter(state=state)
        if principal.allowed_models:
            rows = rows.filter(name__in=principal.allowed_models)
        return pages.page(rows, jobs.prediction_document, limit=limit, cursor=cursor)


def _cancel(principal: Principal, job_id: UUID) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id):
        return jobs.prediction_document(jobs.cancel(principal.actor, _found(principal, job_id)))


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
        return SealReader(self.descriptor, data_key, identity, header_tag=header_tag, stored_bytes=self.stored_bytes)


def _sealed_output(principal: Principal, job_id: UUID) -> SealedOutput:
    with scope.tenant(principal.tenant_id, write=False):
        artefact = jobs.prediction_output(_found(principal, job_id))
        descriptor = vault.sealed_descriptor(artefact)
        return SealedOutput(principal.tenant_id, artefact.id, artefact.stored_bytes, descriptor)


async def _opened_by_agent(sealed: SealedOutput) -> tuple[bytes, bytes]:
    """Header tag and data key, from the node's agent, which asks the vault. Gone, Unavailable."""
    core.ENGINES.targets.look(now=True)
    if (folder := core.ENGINES.targets.folder) is None:
        raise _no_agent()
    question = {"type": "open", "artefact": str(sealed.artefact_id), "tenant": str(sealed.tenant_id)}
    try:
        async with asyncio.timeout(KEY_SECONDS):
            reader, writer = await asyncio.open_unix_connection(folder / OPEN_SOCKET)
            try:
                writer.write(orjson.dumps(question) + b"\n")
                answer = orjson.loads(await reader.readline())
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError) as error:
        raise _no_agent() from error
    if answer.get("type") == "key":
        return base64.b64decode(answer["header_tag"]), base64.b64decode(answer["data_key"])
    if answer.get("code") == "not_found":
        raise Gone("the output has expired")
    raise Unavailable("the key of the output cannot be had now; try again", code="keys_unavailable")


def _no_agent() -> Unavailable:
    return Unavailable("the node's agent does not answer; try again", code="keys_unavailable")


async def _pieces(sealed: SealedOutput, reader: SealReader) -> AsyncGenerator[bytes]:
    try:
        for offset in range(0, reader.size_bytes, PIECE_BYTES):
            length = min(PIECE_BYTES, reader.size_bytes - offset)
            yield bytes(await asyncio.to_thread(reader.read, offset, length))
    finally:
        os.close(sealed.descriptor)

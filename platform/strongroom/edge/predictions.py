"""/api/v1/predictions: asynchronous predictions as jobs: submit, list, read, cancel, and the download of an output.

Their bodies hold tenants' inputs and outputs, so they pass the edge, not Django. What such a job is, jobs/services.py
knows; how an output is opened, download.py.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from strongroom import ids
from strongroom.access.services import Principal
from strongroom.edge import database, download, http, limits, native, principals, waiting, watch
from strongroom.errors import Invalid, NotFound
from strongroom.idempotency import services as idempotency
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Job
from strongroom.jobs.states import State
from strongroom.rest import pages
from strongroom.tenants import scope

PATH = "/api/v1/predictions"
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
    return await download.stream(sealed, b"application/jsonl")


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


def _sealed_output(principal: Principal, job_id: UUID) -> download.Sealed:
    with scope.tenant(principal.tenant_id, write=False):
        return download.sealed(jobs.prediction_output(_found(principal, job_id)))

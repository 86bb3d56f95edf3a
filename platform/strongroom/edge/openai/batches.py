"""/v1/batches: made of an uploaded file, listed, read, cancelled. What a batch is, jobs/services.py knows."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from strongroom.access.services import Principal
from strongroom.edge import database, http, limits, principals
from strongroom.edge.openai import files, pages
from strongroom.errors import NotFound
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Job
from strongroom.openai import requests, resources
from strongroom.openai.batches import BatchRequest
from strongroom.tenants import scope

MAX_BODY_BYTES = 64 * 1024
USUAL_LIMIT, MOST_LIMIT = 20, 100  # OpenAI's


async def create(request: http.Request) -> http.Answer:
    """POST /v1/batches"""
    principal = await _principal(request)
    body = await limits.body(request, principal.tenant_id, MAX_BODY_BYTES)
    if request.media_type != "application/json":
        raise http.unsupported(request.media_type, ["application/json"])
    asked = requests.read(BatchRequest, http.parse(body))
    return http.Answer.of(200, await database.run(_submitted, principal, asked))


async def listed(request: http.Request) -> http.Answer:
    """GET /v1/batches"""
    principal = await _principal(request)
    asked, _ = pages.wanted(request, "batch", usual=USUAL_LIMIT, most=MOST_LIMIT)
    return http.Answer.of(200, await database.run(_page, principal, asked))


async def read(request: http.Request, id: str) -> http.Answer:
    """GET /v1/batches/{id}"""
    principal = await _principal(request)
    return http.Answer.of(200, await database.run(_document, principal, id))


async def cancel(request: http.Request, id: str) -> http.Answer:
    """POST /v1/batches/{id}/cancel"""
    principal = await _principal(request)
    return http.Answer.of(200, await database.run(_cancelled, principal, id))


async def _principal(request: http.Request) -> Principal:
    principal = await principals.of(request)
    principal.require("predict")
    return principal


# --- rows; each runs in a thread


def _submitted(principal: Principal, asked: BatchRequest) -> resources.Json:
    with scope.tenant(principal.tenant_id):
        files.check_input(principal, asked.input_file_id)
        return jobs.batch_document(jobs.submit_batch(principal.actor, asked))


def _seen(principal: Principal) -> QuerySet[Job]:
    """A key that is bound to deployments knows of batches of these, and of its own."""
    rows = jobs.batches()
    if principal.allowed_models:
        own = Q(created_by_kind=principal.kind, created_by_id=principal.id)
        rows = rows.filter(own | Q(deployment__name__in=principal.allowed_models))
    return rows


def _found(principal: Principal, id: str) -> Job:
    job = jobs.batch_of(id)
    if not _seen(principal).filter(id=job.id).exists():
        raise NotFound("there is no such batch")
    return job


def _page(principal: Principal, asked: pages.Wanted) -> resources.Json:
    with scope.tenant(principal.tenant_id, write=False):
        return pages.page(_seen(principal), asked, jobs.batch_document)


def _document(principal: Principal, id: str) -> resources.Json:
    with scope.tenant(principal.tenant_id, write=False):
        return jobs.batch_document(_found(principal, id))


def _cancelled(principal: Principal, id: str) -> Any:
    with scope.tenant(principal.tenant_id):
        return jobs.batch_document(jobs.cancel(principal.actor, _found(principal, id)))

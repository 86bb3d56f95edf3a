"""/v1/files: upload, list, read, delete, download. Reads forms and queries, writes OpenAI's documents.

What a file is, files/services.py knows; the form of an upload is incoming.py's, the way back edge/download.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from django.db.models import Q, QuerySet

from strongroom.access.services import Principal
from strongroom.edge import database, download, forms, http, principals, upload
from strongroom.edge.openai import incoming, pages
from strongroom.errors import Denied, FieldError, Invalid, NotFound
from strongroom.files import services as files
from strongroom.files.models import File
from strongroom.files.services import Purpose
from strongroom.jobs import services as jobs
from strongroom.openai import resources
from strongroom.tenants import scope

READS = {Purpose.BATCH: "predict", Purpose.BATCH_OUTPUT: "predict", Purpose.FINE_TUNE: "datasets:read"}
WRITES = READS | incoming.WRITES
LIST_LIMIT = 10_000
BYTES = b"application/octet-stream"


async def create(request: http.Request) -> http.Answer:
    """POST /v1/files"""
    principal = await principals.of(request)
    _require_any(principal, incoming.WRITES.values())
    room = await database.run(upload.room_of, principal)
    limit = room.upload_bytes + forms.OVERHEAD_BYTES
    request.check_length(limit)
    with upload.UPLOADS.taken(principal.tenant_id):
        form = incoming.Incoming(principal, room)
        try:
            async for found in forms.parts(request, limit):
                await form.take(found)
            sealed, purpose = await form.finish()
        except BaseException:
            await form.abort()
            raise
        added = await database.run(upload.or_abort(sealed.draft, _added), principal, purpose, sealed)
    return http.Answer.of(200, added)


async def listed(request: http.Request) -> http.Answer:
    """GET /v1/files"""
    principal = await principals.of(request)
    _require_any(principal, READS.values())
    asked, fields = pages.wanted(request, "file", usual=LIST_LIMIT, most=LIST_LIMIT, others=("purpose",))
    return http.Answer.of(200, await database.run(_page, principal, asked, fields.get("purpose")))


async def read(request: http.Request, id: str) -> http.Answer:
    """GET /v1/files/{id}"""
    principal = await principals.of(request)
    return http.Answer.of(200, await database.run(_document, principal, id))


async def delete(request: http.Request, id: str) -> http.Answer:
    """DELETE /v1/files/{id}"""
    principal = await principals.of(request)
    await database.run(_delete, principal, id)
    return http.Answer.of(200, resources.deleted(id))


async def content(request: http.Request, id: str) -> http.Answer:
    """GET /v1/files/{id}/content"""
    principal = await principals.of(request)
    return await download.stream(await database.run(_sealed, principal, id), BYTES)


def _require_any(principal: Principal, scopes: Iterable[str]) -> None:
    first, *others = scopes
    if not principal.scopes.intersection(others):
        principal.require(first)


# --- rows; each runs in a thread


def _added(principal: Principal, purpose: Purpose, sealed: files.Sealed) -> resources.Json:
    with scope.tenant(principal.tenant_id):
        upload.room_left(principal).check(sealed.size_bytes)  # others may have come meanwhile
        if purpose is not Purpose.FINE_TUNE:
            return files.document(files.add(principal.actor, purpose, sealed))
        file = files.add_training(principal.actor, sealed)
        if file.dataset_version is not None:
            jobs.submit_check(principal.actor, file.dataset_version)
        return files.document(file)


def _seen(principal: Principal) -> QuerySet[File]:
    """What this principal may know of: by scopes, and of outputs by the deployments that its key is bound to."""
    purposes = [purpose for purpose, needed in READS.items() if needed in principal.scopes]
    rows = files.files().filter(purpose__in=purposes)
    if principal.allowed_models:
        own = Q(purpose=Purpose.FINE_TUNE) | Q(created_by_kind=principal.kind, created_by_id=principal.id)
        rows = rows.filter(own | Q(deployment__in=principal.allowed_models))
    return rows


def _found(principal: Principal, id: str, needed: dict[Purpose, str]) -> File:
    """NotFound; Denied where it is there and a scope is missing."""
    file = files.find(id)
    principal.require(needed[Purpose(file.purpose)])
    if not _seen(principal).filter(id=file.id).exists():
        raise Denied("this key is bound to other deployments than the file's", code="model_not_allowed")
    return file


def check_input(principal: Principal, id: str) -> None:
    """Denied where this principal may not read the file, which it would have answered; that it is none, others say."""
    with suppress(NotFound):
        _found(principal, id, READS)


def _page(principal: Principal, asked: pages.Wanted, purpose: str | None) -> resources.Json:
    with scope.tenant(principal.tenant_id, write=False):
        rows = _seen(principal)
        if purpose is not None:
            rows = rows.filter(purpose=purpose) if purpose in Purpose.values else rows.none()
        return pages.page(rows, asked, files.document)


def _document(principal: Principal, id: str) -> resources.Json:
    with scope.tenant(principal.tenant_id, write=False):
        return files.document(_found(principal, id, READS))


def _delete(principal: Principal, id: str) -> None:
    with scope.tenant(principal.tenant_id):
        files.delete(principal.actor, _found(principal, id, WRITES))


def _sealed(principal: Principal, id: str) -> download.Sealed:
    with scope.tenant(principal.tenant_id, write=False):
        file = _found(principal, id, READS)
        if file.artefact is None:
            message = "is a file for fine-tuning: it is a data set now, and what is deposited there does not leave"
            raise Invalid.all([FieldError("/file_id", "unsupported_value", message, None)])
        return download.sealed(file.artefact)

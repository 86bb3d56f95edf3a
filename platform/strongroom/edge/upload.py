"""PUT …/content: a tenant's bytes, sealed as they arrive. Any size, flat memory, no plaintext outside it.

Everything that can be refused is refused before the first body byte is read. An upload holds four buffers of 1 MiB: one
is filled by the event loop while a thread hashes and seals the other, two are the sealing's own, of plaintext and of
ciphertext; meanwhile the sender waits. An upload that breaks off leaves nothing. Knows no formats: what the bytes are
worth is found by the check's job.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.db import DatabaseError

from sealing import SealWriter
from strongroom.access.services import Principal
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.edge import database, http, principals, waiting, watch
from strongroom.edge.limits import Places
from strongroom.errors import Invalid, StorageUsed
from strongroom.jobs import services as jobs
from strongroom.registry import services as registry
from strongroom.tenants import scope
from strongroom.tenants import services as tenants
from strongroom.tenants.models import Tenant
from strongroom.vault import services as vault

SEGMENT_BYTES = 1 << 20
THREADS = 4

P = ParamSpec("P")
T = TypeVar("T")

UPLOADS = Places("uploads", of_all=96, of_one=24)  # each holds four buffers
_pool = ThreadPoolExecutor(THREADS, "edge-seal")


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes an upload may have: one upload's limit, and what is left of the tenant's storage."""

    upload_bytes: int
    storage_bytes: int | None

    def check(self, received: int) -> None:
        if received > self.upload_bytes:
            raise http.too_large(self.upload_bytes)
        if self.storage_bytes is not None and received > self.storage_bytes:
            raise StorageUsed(
                f"the tenant's storage has room for {self.storage_bytes} bytes more; delete what is not needed",
                hint=f"at most {self.storage_bytes} bytes",
            )


async def dataset(request: http.Request, name: str) -> http.Answer:
    """PUT /datasets/{name}/content?format=…&target=…&modality=…"""
    principal = await principals.of(request)
    principal.require("datasets:write")
    _check_body(request)
    fields = request.query(("format", "target", "modality"))
    if "format" not in fields:
        raise Invalid.field("?format", "is missing", hint=f"one of {', '.join(datasets.FORMATS)}", code="missing")
    room = await database.run(room_of, principal)
    room.check(_told_length(request))
    with UPLOADS.taken(principal.tenant_id):
        upload = await database.run(_begin_dataset, principal, name, fields)
        sha256, size = await seal(request, upload.draft, room)
        finish = or_abort(upload.draft, _finish_dataset)
        version, created = await database.run(finish, principal, upload, sha256, size)
    return await _dataset_answer(request, principal, version, created=created)


async def model(request: http.Request, name: str) -> http.Answer:
    """PUT /models/{name}/content?format=onnx"""
    principal = await principals.of(request)
    principal.require("models:write")
    _check_body(request)
    fields = request.query(("format",))
    room = await database.run(room_of, principal)
    room.check(_told_length(request))
    with UPLOADS.taken(principal.tenant_id):
        upload = await database.run(_begin_model, principal, name, fields)
        sha256, size = await seal(request, upload.draft, room)
        document = await database.run(or_abort(upload.draft, _finish_model), principal, upload, sha256, size)
    return http.Answer.of(201, document)


def _check_body(request: http.Request) -> None:
    """The body is the bytes themselves: no form around them, no compression."""
    if request.media_type == "multipart/form-data":
        raise http.unsupported(request.media_type, ["application/octet-stream: the bytes themselves (curl -T FILE)"])
    if request.header(b"content-encoding").lower() not in {"", "identity"}:
        raise http.unsupported(f"content-encoding {request.header(b'content-encoding')}", ["no content-encoding"])


def _told_length(request: http.Request) -> int:
    return int(request.headers.get(b"content-length", b"0"))


def room_of(principal: Principal) -> Room:
    """Blocks."""
    with scope.tenant(principal.tenant_id, write=False):
        return room_left(principal)


def room_left(principal: Principal) -> Room:
    """`room_of`, in the tenant's scope."""
    limits = tenants.limits(Tenant.objects.get(id=principal.tenant_id))
    ours = settings.ENVIRONMENT.number("max_upload_bytes")
    one = ours if limits["upload_bytes"] is None else min(ours, limits["upload_bytes"])
    all_of_them = limits["storage_bytes"]
    left = None if all_of_them is None else max(0, all_of_them - vault.stored_bytes(principal.tenant_id))
    return Room(one, left)


def _begin_dataset(principal: Principal, name: str, fields: dict[str, str]) -> datasets.Upload:
    with scope.tenant(principal.tenant_id, write=False):
        return datasets.begin_upload(name, **fields)


def _finish_dataset(
    principal: Principal, upload: datasets.Upload, sha256: str, size_bytes: int
) -> tuple[DatasetVersion, bool]:
    with scope.tenant(principal.tenant_id):
        room_left(principal).check(size_bytes)  # others may have come meanwhile
        version, created = datasets.finish_upload(principal.actor, upload, sha256)
        if created:
            jobs.submit_check(principal.actor, version)
    return version, created


def _begin_model(principal: Principal, name: str, fields: dict[str, str]) -> registry.Upload:
    with scope.tenant(principal.tenant_id, write=False):
        return registry.begin_upload(name, **fields)


def _finish_model(principal: Principal, upload: registry.Upload, sha256: str, size_bytes: int) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id):
        room_left(principal).check(size_bytes)
        return registry.finish_upload(principal.actor, upload, sha256)


async def _dataset_answer(
    request: http.Request, principal: Principal, version: DatasetVersion, *, created: bool
) -> http.Answer:
    headers = [(b"location", f"/api/v1/datasets/{version.dataset.name}/versions/{version.number}".encode())]
    done = False
    if (seconds := request.wait_seconds) is not None:
        done = await watch.WATCHES.until_done(watch.Row("dataset", version.dataset_id, version.number), seconds)
        headers.append(waiting.APPLIED)
    document = await database.run(_document, principal, version.dataset.name, version.number)
    return http.Answer.of(200 if not created else 201 if done else 202, document, headers)


def _document(principal: Principal, name: str, number: int) -> dict[str, Any]:
    with scope.tenant(principal.tenant_id, write=False):
        return datasets.document(datasets.resolve(name, number))


# --- sealing ---


async def seal(request: http.Request, draft: vault.Draft, room: Room) -> tuple[str, int]:
    """The body into the published draft; its SHA-256 and its length. Whatever goes wrong, the draft is gone."""
    stream = Stream(draft)
    try:
        received = 0
        async for piece in request.pieces():
            received += len(piece)
            room.check(received)
            await stream.add(piece)
        return await stream.finish(), received
    except BaseException:
        await stream.abort()
        raise


class Stream:
    """A draft fed from the event loop: two buffers in turn, one filled here, one hashed and sealed in a thread."""

    def __init__(self, draft: vault.Draft) -> None:
        self.draft = draft
        self._writer: SealWriter | None = None
        self._sha256 = hashlib.sha256()
        self._buffers = (bytearray(SEGMENT_BYTES), bytearray(SEGMENT_BYTES))
        self._current = 0
        self._fill = 0
        self._busy: asyncio.Future[None] | None = None

    async def add(self, piece: bytes) -> None:
        """Copies the piece; waits while both buffers are full."""
        view = memoryview(piece)
        while view:
            taken = min(len(view), SEGMENT_BYTES - self._fill)
            self._buffers[self._current][self._fill : self._fill + taken] = view[:taken]
            self._fill += taken
            view = view[taken:]
            if self._fill == SEGMENT_BYTES:
                await self._hand_over()

    async def finish(self) -> str:
        if self._fill:
            await self._hand_over()
        await self._idle()
        await in_thread(self._publish)
        return self._sha256.hexdigest()

    async def abort(self) -> None:
        if self._busy is not None:
            await asyncio.wait({self._busy})  # one thread at a time on a draft
            self._busy.exception()
        await in_thread(self.draft.abort)

    async def _hand_over(self) -> None:
        await self._idle()
        full = memoryview(self._buffers[self._current])[: self._fill]
        self._busy = in_thread(self._write, full)
        self._current, self._fill = 1 - self._current, 0

    async def _idle(self) -> None:
        """Waits for the thread without cancelling it when this task is cancelled; raises what it raised."""
        if self._busy is not None:
            await asyncio.wait({self._busy})
            busy, self._busy = self._busy, None
            busy.result()

    def _write(self, segment: memoryview) -> None:
        if self._writer is None:
            self._writer = self.draft.writer()
        self._sha256.update(segment)
        self._writer.write(segment)

    def _publish(self) -> None:
        (self._writer or self.draft.writer()).close()
        self.draft.publish()


def in_thread(call: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(_pool, lambda: call(*args, **keywords))


def or_abort(draft: vault.Draft, call: Callable[P, T]) -> Callable[P, T]:
    """`call`, after whose failure the published file goes too. Not where the database failed: its commit may have
    come through, and a file without a row is collected later."""

    def guarded(*args: P.args, **keywords: P.kwargs) -> T:
        try:
            return call(*args, **keywords)
        except DatabaseError:
            raise
        except BaseException:
            draft.abort()
            raise

    return guarded

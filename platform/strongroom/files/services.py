"""The door of the files: kept, found, listed, deleted, and shown as OpenAI's document.

A file for a batch has an artefact of kind `input`, one for fine-tuning is a version of a data set of its own, one that
a batch wrote an artefact of kind `output`. Bytes never pass here. Knows nothing of jobs; what reads a file registers
itself by `on_use`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from strongroom import ids
from strongroom.audit.services import record
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.errors import Conflict, FieldError, Invalid, NotFound
from strongroom.files.models import File
from strongroom.openai import resources
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

Purpose = File.Purpose
DATASET_FORMAT = "chat-jsonl"
USUAL_DAYS = {Purpose.BATCH: 30}  # the others stay until they are deleted, as OpenAI's do
ARTEFACT_KINDS = {Purpose.BATCH: "input", Purpose.FINE_TUNE: "data", Purpose.BATCH_OUTPUT: "output"}
AT_ONCE = 200

_in_use: list[Callable[[File], bool]] = []


def on_use(check: Callable[[File], bool]) -> None:
    """Registers a higher room's answer to "does something read this file now?"."""
    _in_use.append(check)


@dataclass(frozen=True, slots=True)
class Sealed:
    """Bytes that were sealed and published, and what is said of them."""

    draft: vault.Draft
    filename: str
    size_bytes: int
    sha256: str
    expires_at: datetime | None = None


def begin(purpose: Purpose) -> vault.Draft:
    """Where the bytes are sealed to. LimitReached."""
    vault.check_room(scope.tenant_id())
    return vault.new_artefact(scope.tenant_id(), ARTEFACT_KINDS[purpose])


def usual_expiry(purpose: Purpose) -> datetime | None:
    """When a file that says nothing of it ends."""
    days = USUAL_DAYS.get(purpose)
    return None if days is None else timezone.now() + timedelta(days=days)


def add(actor: Actor, purpose: Purpose, sealed: Sealed, *, deployment: str | None = None) -> File:
    """A file of an artefact of its own, which ends with the file (`forget_expired`), never while a job reads it."""
    return _create(actor, purpose, sealed, artefact=sealed.draft.row(), deployment=deployment)


def add_training(actor: Actor, sealed: Sealed) -> File:
    """A file for fine-tuning: a new data set named as the file is. The caller's transaction also submits its check."""
    id = ids.new()
    upload = datasets.Upload(sealed.draft, dataset_name(id), DATASET_FORMAT, "label", "auto")
    version, _ = datasets.finish_upload(actor, upload, sealed.sha256)
    return _create(actor, Purpose.FINE_TUNE, sealed, id=id, dataset_version=version)


def dataset_name(id: UUID) -> str:
    """`file-01k9zq6v8m3x5r2t7w4y0b1c2d`"""
    return text(id).replace("_", "-")


def text(id: UUID) -> str:
    """The id as callers see it."""
    return ids.text("file", id)


def _create(actor: Actor, purpose: Purpose, sealed: Sealed, **fields: object) -> File:
    file: File = File.objects.create(
        purpose=purpose,
        filename=sealed.filename,
        size_bytes=sealed.size_bytes,
        sha256=sealed.sha256,
        expires_at=sealed.expires_at,
        created_by_kind=actor.kind,
        created_by_id=actor.id,
        **fields,
    )
    record(actor, "file.create", "file", file.id, purpose=str(purpose), size_bytes=sealed.size_bytes)
    return file


def files() -> QuerySet[File]:
    """The tenant's that have not expired, fit for `document`."""
    rows = File.objects.select_related("dataset_version__dataset", "artefact")
    return rows.filter(Q(expires_at=None) | Q(expires_at__gt=Now()))


def find(text_id: str, *, lock: bool = False) -> File:
    """NotFound: for another tenant's, and one that has expired."""
    id = ids.parse("file", text_id)
    rows = files().select_for_update(of=("self",)) if lock else files()
    if id is None or (file := rows.filter(id=id).first()) is None:
        raise NotFound("there is no such file")
    return file


def training_version(text_id: str, field: str = "training_file") -> DatasetVersion:
    """The data set's version behind a file of purpose `fine-tune`. NotFound; Invalid where it is for something else."""
    file = _of_purpose(text_id, Purpose.FINE_TUNE, field)
    version = file.dataset_version
    if version is None or version.state == DatasetVersion.State.DELETED:
        raise _absent(text_id, field)
    return version


def batch_input(text_id: str, field: str = "input_file_id") -> Artefact:
    """The sealed lines of a file of purpose `batch`, which stay until the caller's transaction ends."""
    artefact = _of_purpose(text_id, Purpose.BATCH, field).artefact
    if artefact is None or artefact.state != Artefact.State.SEALED:
        raise _absent(text_id, field)
    return artefact


def _of_purpose(text_id: str, purpose: Purpose, field: str) -> File:
    try:
        file = find(text_id, lock=True)
    except NotFound:
        raise _absent(text_id, field) from None
    if file.purpose != purpose:
        message = f"must be a file of purpose '{purpose}', is one of '{file.purpose}'"
        raise Invalid.field(f"/{field}", message, code="invalid_value", hint=f"upload it with purpose '{purpose}'")
    return file


def _absent(text_id: str, field: str) -> NotFound:
    problem = FieldError(f"/{field}", "not_found", "names a file that is not there", "GET /v1/files lists them")
    return NotFound("there is no such file", errors=[problem])


def delete(actor: Actor, file: File) -> None:
    """Destroys the bytes and forgets the file. Conflict in_use while a job reads it."""
    File.objects.select_for_update().filter(id=file.id).first()  # no job begins to read it now
    _check_unused(file)
    _destroy(actor, file)
    record(actor, "file.delete", "file", file.id, purpose=file.purpose)
    file.delete()


def _check_unused(file: File) -> None:
    if any(check(file) for check in _in_use):
        raise Conflict(f"a batch reads {text(file.id)}; cancel it or wait for its end", code="in_use")


def _destroy(actor: Actor, file: File) -> None:
    version = file.dataset_version
    if version is not None and version.state != DatasetVersion.State.DELETED:
        datasets.delete_version(actor, version)
        datasets.forget_empty(version.dataset)
    if file.artefact is not None:
        vault.destroy(file.artefact)


def forget_expired() -> int:
    """Deletes what has expired, but for what is read just now; how many. Enters the scopes itself."""
    with scope.operator("expired files", write=False):
        expired = File.objects.filter(expires_at__lte=Now()).order_by("?")  # those in use hold up no others
        due = list(expired.values_list("tenant_id", "id")[:AT_ONCE])
    return sum(_forgotten(tenant_id, id) for tenant_id, id in due)


def _forgotten(tenant_id: UUID, id: UUID) -> bool:
    with scope.tenant(tenant_id):
        file = File.objects.select_for_update().filter(id=id).first()
        if file is None:
            return False
        try:
            delete(Actor("system"), file)
        except Conflict:
            return False
        return True


def document(file: File) -> resources.Json:
    """OpenAI's."""
    status, details = _status(file)
    return resources.file(
        text(file.id),
        size_bytes=file.size_bytes,
        created=int(file.created_at.timestamp()),
        name=file.filename,
        purpose=cast(resources.Purpose, file.purpose),
        status=status,
        details=details,
        expires=None if file.expires_at is None else int(file.expires_at.timestamp()),
    )


def _status(file: File) -> tuple[resources.FileStatus, str | None]:
    version = file.dataset_version
    if version is None or version.state == DatasetVersion.State.READY:
        return "processed", None
    if version.state == DatasetVersion.State.CHECKING:
        return "uploaded", None
    if version.state == DatasetVersion.State.DELETED:
        return "error", "the data set behind the file was deleted"
    error = version.error or {}
    hint = error.get("hint")
    return "error", f"{error.get('message')}; {hint}" if hint else error.get("message")

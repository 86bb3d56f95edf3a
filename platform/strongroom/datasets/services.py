"""The door of the data sets: begin and finish an upload, name a version, keep what its check found, delete.

Bytes never pass here: the edge seals them into the upload's draft as they arrive. Knows nothing of jobs; what reads a
version registers itself by `on_use`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Max, OuterRef, QuerySet, Subquery
from django.utils import timezone

from strongroom import ids
from strongroom.audit.services import record
from strongroom.datasets.models import Dataset, DatasetVersion
from strongroom.errors import Conflict, FieldError, Invalid, NotFound
from strongroom.rest.bodies import made_by, moment
from strongroom.tenants import names, scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault

FORMATS = ("csv", "npz", "images", "chat-jsonl")
MODALITIES = ("auto", "tabular", "image", "text")

_in_use: list[Callable[[DatasetVersion], bool]] = []


def on_use(check: Callable[[DatasetVersion], bool]) -> None:
    """Registers a higher room's answer to "does something read this version now?"."""
    _in_use.append(check)


@dataclass(frozen=True, slots=True)
class Upload:
    """A data set on its way in: where its bytes are sealed to, and what they are said to be."""

    draft: vault.Draft
    name: str
    format: str
    target: str
    modality: str


def begin_upload(name: str, *, format: str, target: str = "label", modality: str = "auto") -> Upload:
    """Everything that can be refused before the first byte. Invalid, LimitReached."""
    names.check("name", name)
    problems = [
        *_choice("?format", format, FORMATS),
        *_choice("?modality", modality, MODALITIES),
        *([] if 0 < len(target) <= 128 else [FieldError("?target", "length", "must have 1 to 128 characters")]),
        *([FieldError("?target", "null_character", "must not hold a null character")] if "\0" in target else []),
    ]
    if problems:
        raise Invalid(f"{problems[0].path} {problems[0].message}", errors=problems)
    tenant_id = scope.tenant_id()
    vault.check_room(tenant_id)
    return Upload(vault.new_artefact(tenant_id, "data"), name, format, target, modality)


def _choice(path: str, given: str, allowed: tuple[str, ...]) -> list[FieldError]:
    if given in allowed:
        return []
    return [FieldError(path, "choice", f"must be one of {', '.join(allowed)}, is {given!r}", None)]


def finish_upload(actor: Actor, upload: Upload, sha256_hex: str) -> tuple[DatasetVersion, bool]:
    """The new version in state `checking`, or the newest one and False where the same bytes were uploaded again.

    The caller's transaction also submits the check. The draft is published already; it is aborted where not needed.
    """
    dataset, _ = Dataset.objects.get_or_create(name=upload.name)
    dataset = Dataset.objects.select_for_update().get(id=dataset.id)
    fingerprint = f"sha256:{sha256_hex}"
    newest = dataset.versions.order_by("-number").first()
    if newest is not None and _same(newest, upload, fingerprint):
        upload.draft.abort()
        return newest, False
    artefact = upload.draft.row()
    version = DatasetVersion.objects.create(
        dataset=dataset,
        number=newest.number + 1 if newest else 1,
        format=upload.format,
        modality=upload.modality,
        target=upload.target,
        artefact=artefact,
        size_bytes=artefact.size_bytes,
        fingerprint=fingerprint,
        created_by_kind=actor.kind,
        created_by_id=actor.id,
    )
    if dataset.deleted_at is not None:
        Dataset.objects.filter(id=dataset.id).update(deleted_at=None)
    record(actor, "dataset.upload", "dataset_version", version.id, size_bytes=version.size_bytes)
    return version, True


def _same(version: DatasetVersion, upload: Upload, fingerprint: str) -> bool:
    said = (version.format, version.target, version.fingerprint)
    return (
        version.state != DatasetVersion.State.DELETED
        and said == (upload.format, upload.target, fingerprint)
        and upload.modality in (version.modality, "auto")
    )


def resolve(name: str, number: int | None = None) -> DatasetVersion:
    """A version that is not deleted, the newest without a number; NotFound."""
    rows = versions().filter(dataset__name=name) if names.is_possible(name) else versions().none()
    row = rows.order_by("-number").first() if number is None else rows.filter(number=number).first()
    if row is None:
        wanted = name if number is None else f"{name}@{number}"
        raise NotFound(f"there is no data set {wanted!r}")
    return row


def versions() -> QuerySet[DatasetVersion]:
    """Every version of this tenant that is not deleted."""
    return DatasetVersion.objects.exclude(state=DatasetVersion.State.DELETED).select_related("dataset")


def newest() -> QuerySet[DatasetVersion]:
    """The newest version of each data set."""
    inner = versions().filter(dataset=OuterRef("dataset")).values("dataset").annotate(top=Max("number")).values("top")
    return versions().annotate(top=Subquery(inner)).filter(number=F("top"))


def mark_ready(version: DatasetVersion, profile: dict[str, Any]) -> None:
    """What the check found: rows, modality, columns, warnings."""
    version.state = DatasetVersion.State.READY
    version.rows = profile["rows"]
    version.modality = profile.get("modality", version.modality)
    version.profile = {"columns": profile["columns"], "warnings": profile["warnings"]}
    version.save()


def mark_failed(version: DatasetVersion, code: str, message: str, hint: str | None) -> None:
    """The data cannot be used, and why; the bytes stay until the version is deleted."""
    version.state = DatasetVersion.State.FAILED
    version.error_code = code
    version.error = {"code": code, "message": message, "hint": hint}
    version.save()


def delete_version(actor: Actor, version: DatasetVersion) -> None:
    """Destroys the artefact's key and object; number and fingerprint stay for the lineage. Conflict in_use."""
    if any(check(version) for check in _in_use):
        raise Conflict(f"a job reads {version}; cancel it or wait for its end", code="in_use")
    if version.artefact is not None:
        vault.destroy(version.artefact)
    version.state = DatasetVersion.State.DELETED
    version.profile = version.error = None
    version.save()
    record(actor, "dataset.delete", "dataset_version", version.id)


def delete(actor: Actor, name: str) -> None:
    """Deletes every version. NotFound, Conflict in_use (then none is deleted)."""
    dataset = resolve(name).dataset
    for row in versions().filter(dataset=dataset):
        delete_version(actor, row)
    forget_empty(dataset)


def forget_empty(dataset: Dataset) -> None:
    """A data set of which no version is left."""
    if not versions().filter(dataset=dataset).exists():
        Dataset.objects.filter(id=dataset.id).update(deleted_at=timezone.now())


def document(version: DatasetVersion, *, columns: bool = True) -> dict[str, Any]:
    """The body of the native API; lists leave `columns` null."""
    profile = version.profile or {"columns": None, "warnings": []}
    return {
        "id": ids.text("ds", version.dataset_id),
        "name": version.dataset.name,
        "version": version.number,
        "state": version.state,
        "format": version.format,
        "modality": version.modality,
        "target": version.target,
        "size_bytes": version.size_bytes,
        "fingerprint": version.fingerprint,
        "rows": version.rows,
        "columns": profile["columns"] if columns else None,
        "warnings": profile["warnings"],
        "error": version.error,
        "created_at": moment(version.created_at),
        "created_by": made_by(version),
    }

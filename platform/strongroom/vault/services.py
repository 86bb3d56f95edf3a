"""The vault's door: keys of tenants, artefacts sealed and opened, what they take up, and their end.

Everything here runs in a tenant's scope (or the operator's) and in the caller's transaction; `Draft.publish`,
`Draft.abort` and `Slot.discard` touch no database. `collect_orphans`, `expire` and `verify_ring` enter the operator's.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Self
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.utils import timezone

from sealing import (
    WRAPPED_BYTES,
    ArtefactCorrupt,
    Identity,
    SealReader,
    WrongKey,
    new_data_key,
    unwrap_data_key,
    wrap_data_key,
)
from strongroom import ids
from strongroom.errors import Gone, StorageUsed, Unavailable
from strongroom.tenants import scope
from strongroom.tenants import services as tenants
from strongroom.tenants.models import Tenant
from strongroom.vault import drafts, keys
from strongroom.vault.drafts import KINDS, Draft, Slot, SlotRefused
from strongroom.vault.fields import ColumnCorrupt, Sealed, opened, sealed
from strongroom.vault.keys import WrongRing
from strongroom.vault.models import Artefact, TenantKey
from strongroom.vault.store import TEMPORARY, Store

__all__ = [
    "KINDS",
    "ArtefactCorrupt",
    "ColumnCorrupt",
    "Draft",
    "Sealed",
    "Slot",
    "SlotRefused",
    "StoredReader",
    "WrongRing",
    "adopt",
    "check_room",
    "collect_orphans",
    "create_tenant_keys",
    "data_key",
    "destroy",
    "expire",
    "new_artefact",
    "open_slot",
    "opened",
    "public_key",
    "read_bytes",
    "reader",
    "reseal",
    "root_keys_health",
    "seal_bytes",
    "sealed",
    "sealed_descriptor",
    "store_health",
    "stored_bytes",
    "verify_ring",
]

RESEAL_BYTES = 1 << 20


def create_tenant_keys(tenant_id: UUID) -> None:
    """The tenant's root in the KMS, its key pair and field key; nothing where it has them."""
    keys.create(tenant_id)


def public_key(tenant_id: UUID) -> tuple[bytes, int]:
    """The key that seals for this tenant, and its generation."""
    key = keys.current(tenant_id)
    return key.public_key, key.generation


def new_artefact(tenant_id: UUID, kind: str, *, expires_at: datetime | None = None) -> Draft:
    """A draft under a fresh data key. Works while the key service is down."""
    key = keys.current(tenant_id)
    identity, data_key = _identity(tenant_id, ids.new(), kind), new_data_key()
    wrapped = wrap_data_key(
        key.public_key, data_key, tenant=tenant_id, artefact=identity.artefact, generation=key.generation
    )
    store = _store()
    with drafts.storage_errors():
        temporary = store.begin()
    return Draft(identity, data_key, wrapped, key, expires_at, store, temporary)


def seal_bytes(
    tenant_id: UUID, kind: str, data: bytes | bytearray | memoryview, *, expires_at: datetime | None = None
) -> Artefact:
    draft = new_artefact(tenant_id, kind, expires_at=expires_at)
    try:
        draft.fill(data)
        draft.publish()
        return draft.row()
    except BaseException:
        draft.abort()
        raise


def reseal(published: Draft, fresh: Draft) -> None:
    """What was published, sealed anew in `fresh` (of another kind) and published there; the first is gone. No database.

    For bytes whose kind was known only at their end: a kind is part of what is sealed.
    """
    descriptor = _store().open(drafts.object_name(published.identity))
    try:
        with os.fdopen(descriptor, "rb", buffering=0):
            content, writer = published.reader(descriptor), fresh.writer()
            for offset in range(0, content.size_bytes, RESEAL_BYTES):
                writer.write(content.read(offset, min(RESEAL_BYTES, content.size_bytes - offset)))
            writer.close()
        fresh.publish()
    finally:
        published.abort()


def open_slot(tenant_id: UUID) -> Slot:
    store = _store()
    with drafts.storage_errors():
        return Slot(tenant_id, store, store.begin(readable=False))


def adopt(
    slot: Slot,
    *,
    kind: str,
    artefact_id: UUID,
    header_tag: bytes,
    wrapped_data_key: bytes,
    generation: int,
    size_bytes: int,
    expires_at: datetime | None = None,
) -> Artefact:
    """Takes over what a child sealed into its slot: SlotRefused where head, length or claims do not fit together.

    The slot is used up, except while the key service is away (Unavailable): then it stands, to be adopted later or
    discarded. Only the data key's own opening is left to the first reader.
    """
    try:
        identity = _identity(slot.tenant_id, artefact_id, kind)
        key = keys.of_generation(slot.tenant_id, generation)
        if key.state == TenantKey.State.DESTROYED or len(wrapped_data_key) != WRAPPED_BYTES:
            raise SlotRefused("the data key is not sealed to a key of the tenant")
        if Artefact.objects.filter(id=artefact_id).exists():
            raise SlotRefused("an artefact of that id is there already")
        drafts.row_tag(identity, generation, header_tag, wrapped_data_key)  # the row will need it: ask before the file
    except Unavailable:
        raise
    except BaseException:
        slot.discard()
        raise
    slot.publish(identity, header_tag, size_bytes)
    try:
        with transaction.atomic(using=scope.alias()):
            return drafts.insert(
                _store(),
                identity,
                keys.Current(key.id, key.generation, bytes(key.public_key)),
                header_tag=header_tag,
                wrapped_data_key=wrapped_data_key,
                size_bytes=size_bytes,
                expires_at=expires_at,
            )
    except IntegrityError:  # another tenant's artefact has that id, which no honest child hits
        _store().remove(drafts.object_name(identity))
        raise SlotRefused("an artefact of that id is there already") from None


def data_key(artefact: Artefact) -> bytes:
    """Opens the data key, once the row tag vouches for the row. ArtefactCorrupt; Gone where it is destroyed."""
    _require_sealed(artefact)
    identity, generation = _identity_of(artefact), artefact.tenant_key.generation
    header_tag, wrapped = bytes(artefact.header_tag), bytes(artefact.wrapped_data_key)
    if not hmac.compare_digest(drafts.row_tag(identity, generation, header_tag, wrapped), bytes(artefact.row_tag)):
        raise ArtefactCorrupt(artefact.id)
    private = keys.private_key(artefact.tenant_id, generation).reveal()
    try:
        return unwrap_data_key(private, wrapped, tenant=artefact.tenant_id, artefact=artefact.id, generation=generation)
    except WrongKey:
        raise ArtefactCorrupt(artefact.id) from None


def sealed_descriptor(artefact: Artefact) -> int:
    """A read-only descriptor on the sealed file, which the caller closes. A file that is missing is corrupt."""
    _require_sealed(artefact)
    try:
        return _store().open(artefact.object_name)
    except FileNotFoundError:
        raise ArtefactCorrupt(artefact.id) from None


class StoredReader(SealReader):
    """A SealReader that owns its descriptor: use it in a `with`, or close it."""

    def __init__(self, artefact: Artefact) -> None:
        key = data_key(artefact)
        self._owned = os.fdopen(sealed_descriptor(artefact), "rb", buffering=0)
        try:
            super().__init__(
                self._owned.fileno(),
                key,
                _identity_of(artefact),
                header_tag=bytes(artefact.header_tag),
                stored_bytes=artefact.stored_bytes,
            )
        except BaseException:
            self._owned.close()
            raise

    def close(self) -> None:
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def reader(artefact: Artefact) -> StoredReader:
    return StoredReader(artefact)


def read_bytes(artefact: Artefact) -> bytes:
    with reader(artefact) as content:
        return bytes(content.read())


def destroy(artefact: Artefact) -> None:
    """The data key is blanked in this transaction, which ends the content; the file goes after the commit."""
    values = {"state": Artefact.State.DESTROYED, "wrapped_data_key": b"", "destroyed_at": timezone.now()}
    if not Artefact.objects.filter(id=artefact.id, state=Artefact.State.SEALED).update(**values):
        return
    for name, value in values.items():
        setattr(artefact, name, value)
    remove = functools.partial(_store().remove, artefact.object_name)
    transaction.on_commit(remove, using=scope.alias(), robust=True)


def expire(now: datetime) -> int:
    """Destroys what has expired; how many."""
    with scope.operator("expire artefacts"):
        due = list(Artefact.objects.filter(expires_at__lte=now, state=Artefact.State.SEALED)[:500])
        for artefact in due:
            destroy(artefact)
    return len(due)


def collect_orphans(older_than: timedelta = timedelta(days=1)) -> int:
    """Removes files without a row, temporary or published, that are older than this; how many."""
    store, removed = _store(), 0
    names = store.older_than(datetime.now(UTC) - older_than)
    while batch := list(islice(names, 500)):
        published = [name for name in batch if not name.startswith(f"{TEMPORARY}/")]
        kept = _names_in_rows(published)
        for name in batch:
            if name not in kept:
                with contextlib.suppress(FileNotFoundError):
                    store.remove(name)
                removed += 1
    return removed


def _names_in_rows(names: Iterable[str]) -> set[str]:
    with scope.operator("collect orphans", write=False):
        rows = Artefact.objects.filter(object_name__in=list(names), state=Artefact.State.SEALED)
        return set(rows.values_list("object_name", flat=True))


def stored_bytes(tenant_id: UUID) -> int:
    rows = Artefact.objects.filter(tenant_id=tenant_id, state=Artefact.State.SEALED)
    return rows.aggregate(total=Sum("stored_bytes"))["total"] or 0


def check_room(tenant_id: UUID, size_bytes: int = 1) -> None:
    """StorageUsed where the tenant's storage has no room for that much more."""
    allowed = tenants.limits(Tenant.objects.get(id=tenant_id))["storage_bytes"]
    if allowed is not None and stored_bytes(tenant_id) + size_bytes > allowed:
        raise StorageUsed(
            f"the tenant stores its limit of {allowed} bytes; delete what is not needed", hint=f"limit {allowed}"
        )


def verify_ring() -> None:
    """WrongRing, with the remedy, where the root keys are not this database's; for the start of every process."""
    with scope.operator("verify the root keys", write=False):
        keys.verify_ring()


def root_keys_health() -> str:
    """`ok`, or what is wrong."""
    return keys.health().detail


def store_health() -> str:
    return _store().health()


def _identity(tenant_id: UUID, artefact_id: UUID, kind: str) -> Identity:
    if kind not in KINDS:
        raise ValueError(f"no artefact is of kind {kind!r}")
    return Identity(tenant_id, artefact_id, kind)


def _identity_of(artefact: Artefact) -> Identity:
    return _identity(artefact.tenant_id, artefact.id, artefact.kind)


def _require_sealed(artefact: Artefact) -> None:
    if artefact.state != Artefact.State.SEALED:
        raise Gone("the content was deleted or has expired")


def _store() -> Store:
    return _store_in(settings.ENVIRONMENT.store_path)


@functools.cache
def _store_in(folder: Path) -> Store:
    return Store(folder)

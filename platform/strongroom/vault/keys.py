"""Tenants' keys: made, looked up by generation, opened through the key management service and kept for minutes.

The one place that knows the KMS of this installation, and where its failures become the platform's. Needs a scope: a
key is opened for its own tenant's scope or the operator's, and for nobody else, cached or not.
"""

from __future__ import annotations

import functools
import hmac
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from sealing import generate_tenant_key
from strongroom.errors import Gone, NotFound, StrongroomError, Unavailable
from strongroom.tenants import scope
from strongroom.vault.keyring import Key, Keyring
from strongroom.vault.kms import Health, Kms, KmsError, KmsGone, KmsRefused, KmsUnavailable, RingKms, Wrapped
from strongroom.vault.models import TenantKey

log = logging.getLogger(__name__)

SUITE = "HPKE MLKEM768_X25519 HKDF_SHA256 AES_256_GCM"
CURRENT_SECONDS = 60  # how long after a rotation another process may still seal columns with the generation before
_keyring = Keyring()
_generations: dict[UUID, tuple[float, int]] = {}  # tenant → until, its active generation; single writes are atomic


def _start_anew() -> None:
    """A forked child has none of its parent's keys, nor a lock that a thread of the parent held."""
    global _keyring
    _keyring = Keyring()
    _generations.clear()


os.register_at_fork(after_in_child=_start_anew)


class WrongRing(Exception):
    """The key management service is not the one that this database's keys were wrapped with."""


@dataclass(frozen=True, slots=True)
class Current:
    """What sealing needs of a tenant: its active generation. The public half opens nothing."""

    row_id: UUID
    generation: int
    public_key: bytes


def kms() -> Kms:
    return _ring(settings.ENVIRONMENT.ring_path)


@functools.cache
def _ring(folder: Path) -> RingKms:
    return RingKms(folder)


def create(tenant_id: UUID) -> None:
    """The tenant's root and its first generation; nothing where it has one."""
    rows = TenantKey.objects.filter(tenant_id=tenant_id)
    if rows.filter(state=TenantKey.State.ACTIVE).exists():
        return
    last = rows.order_by("-generation").values_list("generation", flat=True).first()
    generation, root = (last or 0) + 1, f"tenant-{tenant_id}"
    pair, field_key = generate_tenant_key(), os.urandom(32)
    with _platform_errors():
        kms().create(root)
        private = kms().wrap(root, pair.private, _context("tenant", tenant_id, generation))
        field = kms().wrap(root, field_key, _context("field", tenant_id, generation))
        if private.generation != field.generation:  # rotated between the two; the newer one wraps both
            private = kms().wrap(root, pair.private, _context("tenant", tenant_id, generation))
    TenantKey.objects.create(
        tenant_id=tenant_id,
        generation=generation,
        suite=SUITE,
        public_key=pair.public,
        wrapped_private_key=private.blob,
        wrapped_field_key=field.blob,
        kms_key=root,
        kms_generation=field.generation,
    )


def current(tenant_id: UUID) -> Current:
    """NotFound where the tenant has no active keys."""
    _require_scope_of(tenant_id)
    row = TenantKey.objects.filter(tenant_id=tenant_id, state=TenantKey.State.ACTIVE).first()
    if row is None:
        raise NotFound("the tenant has no keys")
    return Current(row.id, row.generation, bytes(row.public_key))


def current_generation(tenant_id: UUID) -> int:
    """For sealed columns, of which one transaction may write a hundred: remembered for CURRENT_SECONDS."""
    _require_scope_of(tenant_id)
    until, generation = _generations.get(tenant_id, (0.0, 0))
    if until <= time.monotonic():
        generation = current(tenant_id).generation
        _generations[tenant_id] = (time.monotonic() + CURRENT_SECONDS, generation)
    return generation


def of_generation(tenant_id: UUID, generation: int) -> TenantKey:
    _require_scope_of(tenant_id)
    row = TenantKey.objects.filter(tenant_id=tenant_id, generation=generation).first()
    if row is None:
        raise NotFound("the tenant has no key of that generation")
    return row


def private_key(tenant_id: UUID, generation: int) -> Key:
    return _opened("tenant", tenant_id, generation, lambda row: bytes(row.wrapped_private_key))


def column_key(tenant_id: UUID, generation: int) -> bytes:
    """For sealed columns."""
    return _derived(_field_key(tenant_id, generation), b"strongroom field 1")


def row_tag(tenant_id: UUID, generation: int, message: bytes) -> bytes:
    """Vouches for an artefact's row: who can write the database and the storage has no field key."""
    key = _derived(_field_key(tenant_id, generation), b"strongroom artefact row 1")
    return hmac.digest(key, message, "sha256")


def forget(tenant_id: UUID) -> None:
    """Empties this process's cache of the tenant's keys."""
    _keyring.forget(lambda name: isinstance(name, tuple) and name[1] == tenant_id)
    _generations.pop(tenant_id, None)


def verify_ring() -> None:
    """WrongRing where the newest tenant's key does not open; for the start of a process, in the operator's scope."""
    row = TenantKey.objects.exclude(state=TenantKey.State.DESTROYED).order_by("-created_at").first()
    if row is None:
        return
    wrapped = Wrapped(row.kms_generation, bytes(row.wrapped_field_key))
    try:
        kms().unwrap(row.kms_key, wrapped, _context("field", row.tenant_id, row.generation))
    except (KmsGone, KmsRefused) as problem:
        raise WrongRing(
            f"the root keys ({kms().name}) are not those that this database was sealed with: {problem}. "
            "Point STRONGROOM_KMS at the right ones, or restore them from their backup."
        ) from None
    except KmsUnavailable:
        log.warning("the root keys cannot be checked now: the key service does not answer")


def health() -> Health:
    try:
        return kms().health()
    except KmsError as error:
        return Health(False, str(error))


def _field_key(tenant_id: UUID, generation: int) -> Key:
    return _opened("field", tenant_id, generation, lambda row: bytes(row.wrapped_field_key))


def _opened(what: str, tenant_id: UUID, generation: int, wrapped: Callable[[TenantKey], bytes]) -> Key:
    _require_scope_of(tenant_id)

    def ask() -> bytes:
        row = of_generation(tenant_id, generation)
        if row.state == TenantKey.State.DESTROYED:
            raise KmsGone("the tenant's keys are destroyed")
        blob = Wrapped(row.kms_generation, wrapped(row))
        return kms().unwrap(row.kms_key, blob, _context(what, tenant_id, generation))

    with _platform_errors():
        return _keyring.get((what, tenant_id, generation), ask)


def _context(what: str, tenant_id: UUID, generation: int) -> bytes:
    return b"strongroom " + what.encode() + b" key 1" + tenant_id.bytes + generation.to_bytes(4, "big")


def _derived(key: Key, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, info).derive(key.reveal())


def _require_scope_of(tenant_id: UUID) -> None:
    asked = scope.required()
    if not asked.is_operator and asked.tenant_id != tenant_id:
        raise scope.NoScope("a key of another tenant")


@contextmanager
def _platform_errors() -> Iterator[None]:
    try:
        yield
    except KmsUnavailable:
        raise Unavailable(
            "the key service does not answer; loaded models go on serving, try again", code="keys_unavailable"
        ) from None
    except KmsGone:
        raise Gone("the keys that this was sealed with are destroyed") from None
    except KmsRefused as refusal:
        log.error("the key service refused: %s", refusal)
        raise StrongroomError("the key service refused the tenant's key; the operator's log says why") from None

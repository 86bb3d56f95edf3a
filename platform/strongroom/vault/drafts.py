"""Artefacts in the making: a file without a row (Draft), or a file that a sandboxed child seals (Slot).

The order is always the same: bytes to a temporary file, to the disk, to their name; then the row. What breaks off in
between is litter that `collect_orphans` removes. Neither needs a key that opens anything.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.utils import timezone

from sealing import ArtefactCorrupt, Identity, SealReader, SealWriter, inspect, seal_memory
from strongroom.errors import Unavailable
from strongroom.vault import keys
from strongroom.vault.models import Artefact
from strongroom.vault.store import NameTaken, Store, Temporary

KINDS = frozenset(("model", "data", "checkpoint", "result", "import", "input", "output", "profile", "export"))


class SlotRefused(Exception):
    """What a child left in its slot is not the artefact that it claims."""


@contextmanager
def storage_errors() -> Iterator[None]:
    """A full disk is 503 and says so; anything else about the storage is our failure."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise Unavailable("the storage is full; the operator must make room", code="storage_full") from None


def row_tag(identity: Identity, generation: int, header_tag: bytes, wrapped_data_key: bytes) -> bytes:
    """Vouches that whoever wrote the row had a key of the tenant: anyone with the public half can wrap a data key."""
    kind = identity.kind.encode("ascii").ljust(16, b"\0")
    names = identity.tenant.bytes + identity.artefact.bytes + kind + generation.to_bytes(4, "big")
    return keys.row_tag(identity.tenant, generation, names + header_tag + wrapped_data_key)


def object_name(identity: Identity) -> str:
    return f"{identity.tenant}/{identity.artefact}"


@dataclass(slots=True)
class Draft:
    """A new artefact. `writer` (or `fill`), `publish`, `row`; or `abort` at any point. One thread at a time.

    Only `row` touches the database; it needs the tenant's field key, so a key service that is down holds it up.
    """

    identity: Identity
    data_key: bytes = field(repr=False)
    wrapped_data_key: bytes = field(repr=False)
    key: keys.Current = field(repr=False)
    expires_at: datetime | None
    _store: Store = field(repr=False)
    _temporary: Temporary = field(repr=False)
    _writer: SealWriter | None = field(default=None, repr=False)
    _header_tag: bytes | None = field(default=None, repr=False)
    _size_bytes: int = 0
    _state: str = "open"  # open → published → in a row; aborted

    @property
    def descriptor(self) -> int:
        """The temporary file, until `publish` or `abort` closes it."""
        return self._temporary.descriptor

    def writer(self) -> SealWriter:
        """Once: a data key seals one stream. The caller closes it before `publish`."""
        self._must_be("open")
        if self._writer is not None or self._header_tag is not None:
            raise ValueError("this draft has been written; a data key seals one stream")
        with storage_errors():
            self._writer = SealWriter(self._write, self.data_key, self.identity)
        return self._writer

    def fill(self, data: bytes | bytearray | memoryview) -> None:
        """Seals all of it at once, in place of `writer`."""
        self._must_be("open")
        if self._writer is not None or self._header_tag is not None:
            raise ValueError("this draft has been written; a data key seals one stream")
        with storage_errors():
            self._header_tag = seal_memory(data, self.descriptor, self.data_key, self.identity)
        self._size_bytes = memoryview(data).nbytes

    def publish(self) -> None:
        """To the disk and to its name. No database; any thread."""
        self._must_be("open")
        if self._writer is not None and self._writer.complete:
            self._header_tag, self._size_bytes = self._writer.header_tag, self._writer.size_bytes
        if self._header_tag is None:
            raise ValueError("close the draft's writer before you publish it")
        with storage_errors():
            self._store.publish(self._temporary, object_name(self.identity))
        self._state = "published"
        os.close(self._temporary.descriptor)

    def row(self) -> Artefact:
        """Inserts the row, in the caller's transaction: from its commit on the artefact counts."""
        self._must_be("published")
        header_tag = self._header_tag or b""
        artefact = insert(
            self._store,
            self.identity,
            self.key,
            header_tag=header_tag,
            wrapped_data_key=self.wrapped_data_key,
            size_bytes=self._size_bytes,
            expires_at=self.expires_at,
        )
        self._state = "in a row"
        return artefact

    def reader(self, descriptor: int) -> SealReader:
        """What was sealed and published, of the sealed file that the caller has open."""
        self._must_be("published")
        stored_bytes, tag = os.fstat(descriptor).st_size, self._header_tag or b""
        return SealReader(descriptor, self.data_key, self.identity, header_tag=tag, stored_bytes=stored_bytes)

    def abort(self) -> None:
        """Removes what was written; nothing once there is a row."""
        if self._state == "open":
            os.close(self._temporary.descriptor)
            self._store.discard(self._temporary)
            self._state = "aborted"
        elif self._state == "published":
            self._store.remove(object_name(self.identity))
            self._state = "aborted"

    def __del__(self) -> None:
        """Nobody took it: its caller may have given up before it was there."""
        if self._state == "open":
            self.abort()

    def _write(self, piece: memoryview) -> int:
        with storage_errors():
            return os.write(self._temporary.descriptor, piece)

    def _must_be(self, state: str) -> None:
        if self._state != state:
            raise ValueError(f"the draft must be {state}, is {self._state}")


@dataclass(slots=True)
class Slot:
    """A write-only descriptor on a temporary file, for a child that seals on its own. `adopt` or `discard` ends it."""

    tenant_id: UUID
    _store: Store = field(repr=False)
    _temporary: Temporary = field(repr=False)
    _open: bool = True

    @property
    def descriptor(self) -> int:
        return self._temporary.descriptor

    def sync(self) -> None:
        """What the child wrote is on the disk: done before a transaction, publishing takes no time inside it."""
        with storage_errors():
            os.fsync(self._temporary.descriptor)

    def publish(self, identity: Identity, header_tag: bytes, size_bytes: int) -> None:
        """Checks what can be checked without a key, then as a draft's. SlotRefused, and the slot is discarded."""
        try:
            with storage_errors():
                self._check(identity, header_tag, size_bytes)
                self._store.publish(self._temporary, object_name(identity))
        except NameTaken:
            raise SlotRefused("an artefact of that id is there already") from None
        finally:
            self.discard()

    def discard(self) -> None:
        if self._open:
            self._open = False
            os.close(self._temporary.descriptor)
            self._store.discard(self._temporary)

    def _check(self, identity: Identity, header_tag: bytes, size_bytes: int) -> None:
        if not self._open:
            raise ValueError("the slot is used up")
        descriptor = self._store.open(self._temporary.name)
        try:
            stored_bytes = os.fstat(descriptor).st_size
            plan = inspect(descriptor, identity, header_tag=header_tag, stored_bytes=stored_bytes)
        except ArtefactCorrupt as corrupt:
            raise SlotRefused(str(corrupt)) from None
        finally:
            os.close(descriptor)
        if plan.size_bytes != size_bytes:
            raise SlotRefused(f"{plan.size_bytes} bytes are sealed, {size_bytes} were claimed")


def insert(
    store: Store,
    identity: Identity,
    key: keys.Current,
    *,
    header_tag: bytes,
    wrapped_data_key: bytes,
    size_bytes: int,
    expires_at: datetime | None,
) -> Artefact:
    """The row of a published file."""
    descriptor = store.open(object_name(identity))
    with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)):
        stored_bytes = os.fstat(descriptor).st_size
    return Artefact.objects.create(
        id=identity.artefact,
        tenant_id=identity.tenant,
        kind=identity.kind,
        tenant_key_id=key.row_id,
        wrapped_data_key=wrapped_data_key,
        header_tag=header_tag,
        row_tag=row_tag(identity, key.generation, header_tag, wrapped_data_key),
        object_name=object_name(identity),
        size_bytes=size_bytes,
        stored_bytes=stored_bytes,
        sealed_at=timezone.now(),
        expires_at=expires_at,
    )

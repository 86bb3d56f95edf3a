"""What the tests of sealing share: an identity, a key, sealing to bytes and opening from bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sealing import Identity, SealReader, SealWriter

TENANT = UUID("11111111-2222-4333-8444-555555555555")
ARTEFACT = UUID("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee")
MODEL = Identity(TENANT, ARTEFACT, "model")
KEY = bytes(range(32))

LOG2 = 16  # small segments, so that small artefacts have several
SEGMENT = 1 << LOG2
FIRST, REST = SEGMENT - 56, SEGMENT - 16  # plaintext bytes of the first segment and of the others
BOUNDARIES = sorted(
    {
        max(0, edge + step)
        for edge in (0, FIRST, FIRST + REST, FIRST + 2 * REST, FIRST + 3 * REST)
        for step in (-16, -1, 0, 1, 16)
    }
)


@contextmanager
def descriptor_of(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("artefact")
    try:
        os.pwrite(descriptor, content, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def sealed(plain: bytes, *, key: bytes = KEY, identity: Identity = MODEL, log2: int = LOG2) -> bytes:
    stored = bytearray()
    writer = SealWriter(stored.extend, key, identity, segment_log2=log2)
    writer.write(plain)
    writer.close()
    assert (writer.size_bytes, writer.stored_bytes) == (len(plain), len(stored))
    assert stored[64:96] == writer.header_tag
    return bytes(stored)


@contextmanager
def reader_of(
    stored: bytes,
    *,
    key: bytes = KEY,
    identity: Identity = MODEL,
    header_tag: bytes | None = None,
    stored_bytes: int | None = None,
) -> Iterator[SealReader]:
    """As if the database expected just these bytes, unless told otherwise: the strictest enemy, who has both."""
    with descriptor_of(stored) as descriptor:
        yield SealReader(
            descriptor,
            key,
            identity,
            header_tag=stored[64:96].ljust(32, b"\0") if header_tag is None else header_tag,
            stored_bytes=len(stored) if stored_bytes is None else stored_bytes,
        )


def opened(
    stored: bytes,
    *,
    key: bytes = KEY,
    identity: Identity = MODEL,
    header_tag: bytes | None = None,
    stored_bytes: int | None = None,
) -> bytes:
    with reader_of(stored, key=key, identity=identity, header_tag=header_tag, stored_bytes=stored_bytes) as artefact:
        return bytes(artefact.read())

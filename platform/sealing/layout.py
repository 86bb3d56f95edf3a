"""The first 136 bytes of a sealed artefact and the arithmetic of its segments (docs/formats/artefact.md).

Knows offsets and sizes, no key and no input or output. One trick makes the arithmetic plain: the 40 bytes of Tink's
header count as the first plaintext bytes, so that segment 0 is like every other.
"""

import struct
from dataclasses import dataclass
from typing import Self
from uuid import UUID

MAGIC, VERSION, SUITE = b"STRGROOM", 1, 1
IDENTITY_BYTES = 64  # what names the artefact, and the stream's associated data
TAG_BYTES = 32
STREAM_OFFSET = IDENTITY_BYTES + TAG_BYTES  # in the file: from here on it is a Tink ciphertext
STREAM_HEADER_BYTES = 40  # Tink's own: its length (1), salt (32), nonce prefix (7)
HEAD_BYTES = STREAM_OFFSET + STREAM_HEADER_BYTES
GCM_TAG_BYTES = 16
SEGMENT_LOG2 = range(16, 23)
SEGMENT_LOG2_OFFSET = 10
MOST_SEGMENTS = 1 << 32  # the segment's number has four bytes in the nonce

_IDENTITY = struct.Struct(">8sBBBB4x16s16s16s")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose artefact, which, and what it is: bound into every byte of the file."""

    tenant: UUID
    artefact: UUID
    kind: str  # 1 to 16 ASCII letters

    def __post_init__(self) -> None:
        if not (self.kind.isascii() and self.kind.isalpha() and len(self.kind) <= 16):
            raise ValueError("an artefact's kind is 1 to 16 ASCII letters")

    def header(self, segment_log2: int) -> bytes:
        """Bytes 0-63 of the file."""
        if segment_log2 not in SEGMENT_LOG2:
            raise ValueError("segments have 2^16 to 2^22 bytes")
        kind, tenant, artefact = self.kind.encode("ascii"), self.tenant.bytes, self.artefact.bytes
        return _IDENTITY.pack(MAGIC, VERSION, SUITE, segment_log2, 0, kind, tenant, artefact)


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the segments of one artefact lie. Make it with `of_plaintext` or `of_stored`."""

    segment_bytes: int
    size_bytes: int  # of the plaintext
    count: int

    @classmethod
    def of_plaintext(cls, segment_log2: int, size_bytes: int) -> Self:
        room = (1 << segment_log2) - GCM_TAG_BYTES
        count = max(1, -(-(size_bytes + STREAM_HEADER_BYTES) // room))
        if count > MOST_SEGMENTS:
            raise ValueError("too long for segments of this size")
        return cls(1 << segment_log2, size_bytes, count)

    @classmethod
    def of_stored(cls, segment_log2: int, stored_bytes: int) -> Self:
        """Backwards from the file's length; a length that no plaintext has leaves a negative or empty last segment,
        which `is_valid` tells."""
        stream = stored_bytes - STREAM_OFFSET
        count = max(1, -(-stream // (1 << segment_log2)))
        return cls(1 << segment_log2, stream - STREAM_HEADER_BYTES - GCM_TAG_BYTES * count, count)

    @property
    def is_valid(self) -> bool:
        """One plaintext has one length: an empty segment stands alone or not at all, though Tink reads it."""
        begin, end = self.plain(self.last)
        return self.count <= MOST_SEGMENTS and (end > begin or (self.count == 1 and self.size_bytes == 0))

    @property
    def room(self) -> int:
        """Plaintext bytes in a segment, the stream's header counted in."""
        return self.segment_bytes - GCM_TAG_BYTES

    @property
    def last(self) -> int:
        return self.count - 1

    @property
    def stored_bytes(self) -> int:
        return HEAD_BYTES + self.size_bytes + GCM_TAG_BYTES * self.count

    def holding(self, offset: int) -> int:
        """The segment that holds this byte of the plaintext."""
        return (offset + STREAM_HEADER_BYTES) // self.room

    def plain(self, index: int) -> tuple[int, int]:
        """Begin and end of a segment in the plaintext."""
        begin = index * self.room - STREAM_HEADER_BYTES
        return max(begin, 0), min(begin + self.room, self.size_bytes)

    def stored(self, index: int) -> tuple[int, int]:
        """Begin and end of a segment in the file."""
        begin = STREAM_OFFSET + index * self.segment_bytes
        return max(begin, HEAD_BYTES), min(begin + self.segment_bytes, self.stored_bytes)

"""Sealing and opening a stream of any length: Tink's AES-GCM-HKDF streaming behind an identity header.

Knows buffers, files and what to refuse; offsets come from layout.py, keys from cipher.py. Segments go through buffers
that are kept, since fresh memory costs more than the cipher (first touch is about 0.4 GB/s, AES-GCM 6 GB/s).
Ciphertext is never mapped: its writer could change it between the check and the use.
"""

import hmac
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from cryptography.exceptions import InvalidTag

from sealing.cipher import Cipher, Head, tag_of
from sealing.errors import ArtefactCorrupt
from sealing.layout import (
    GCM_TAG_BYTES,
    HEAD_BYTES,
    IDENTITY_BYTES,
    MOST_SEGMENTS,
    SEGMENT_LOG2,
    SEGMENT_LOG2_OFFSET,
    STREAM_HEADER_BYTES,
    STREAM_OFFSET,
    Identity,
    Segments,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Bytes = bytes | bytearray | memoryview

_SEGMENTS_PER_WORKER = 4  # below it a thread costs more than it saves: two workers from 8 MiB up


class SealWriter:
    """Seals what is pushed into it, in the memory of two segments. For one thread at a time.

    `write` gets each finished piece and must be done with it when it returns, since the next piece overwrites it; when
    it returns a number, as `os.write` does, the rest is handed to it again.
    Nothing is whole before `close`, which alone marks the last segment: a writer that is dropped leaves litter.
    """

    def __init__(
        self,
        write: Callable[[memoryview], object],
        data_key: bytes,
        identity: Identity,
        *,
        segment_log2: int = 20,
    ) -> None:
        head = Head(data_key, identity, segment_log2)
        self.header_tag = head.tag
        self.size_bytes = 0
        self.stored_bytes = 0
        self.complete = False
        self._write, self._cipher = write, head.cipher
        self._plain = memoryview(bytearray((1 << segment_log2) - GCM_TAG_BYTES))
        self._sealed = memoryview(bytearray(1 << segment_log2))
        self._room = len(self._plain) - STREAM_HEADER_BYTES  # of the segment at hand
        self._filled = 0
        self._index = 0
        self._open = True
        self._hand_over(memoryview(head.bytes))

    def write(self, data: Bytes) -> None:
        """A full segment waits until more comes, because the last one is sealed differently."""
        self._must_be_open()
        rest = memoryview(data).cast("B")
        while rest:
            if self._filled == self._room:
                self._seal(self._plain[: self._filled], last=False)
            if not self._filled and len(rest) > self._room:
                rest, whole = rest[self._room :], rest[: self._room]
                self._seal(whole, last=False)
            else:
                piece = rest[: self._room - self._filled]
                self._plain[self._filled : self._filled + len(piece)] = piece
                self._filled += len(piece)
                rest = rest[len(piece) :]

    def close(self) -> None:
        self._must_be_open()
        self._seal(self._plain[: self._filled], last=True)
        self._open = False
        self.complete = True

    def _must_be_open(self) -> None:
        if not self._open:
            raise ValueError("this sealing has ended or failed; seal again under a new data key")

    def _seal(self, plain: memoryview, *, last: bool) -> None:
        if self._index >= MOST_SEGMENTS:
            raise ValueError("too long for segments of this size")
        sealed = self._cipher.seal(self._index, last, plain, self._sealed)
        self._hand_over(sealed)
        self.size_bytes += len(plain)
        self._index += 1
        self._filled, self._room = 0, len(self._plain)

    def _hand_over(self, piece: memoryview) -> None:
        self._open = False  # until the piece is out: after a failed write the key is spent
        rest = piece
        while rest:
            written = self._write(rest)
            if written is None or not isinstance(written, int):
                break
            if written <= 0:
                raise OSError("nothing was written")
            rest = rest[written:]
        self.stored_bytes += len(piece)
        self._open = True


def seal_memory(
    data: Bytes,
    target: int,
    data_key: bytes,
    identity: Identity,
    *,
    segment_log2: int = 20,
    workers: int = 2,
) -> bytes:
    """Seals what lies in memory onto an empty descriptor; returns the header tag.

    Each worker has a buffer of its own and takes every n-th segment: the cipher lets go of the lock.
    """
    head, view = Head(data_key, identity, segment_log2), memoryview(data).cast("B")
    plan = Segments.of_plaintext(segment_log2, len(view))
    if os.fstat(target).st_size:
        raise ValueError("the target is not empty: what it holds beyond the artefact's end would stay")
    os.ftruncate(target, plan.stored_bytes)
    _write_at(target, memoryview(head.bytes), 0)

    def lane(indices: range) -> None:
        sealed = memoryview(bytearray(min(plan.segment_bytes, plan.stored_bytes)))
        for index in indices:
            begin, end = plan.plain(index)
            piece = head.cipher.seal(index, index == plan.last, view[begin:end], sealed)
            _write_at(target, piece, plan.stored(index)[0])

    _side_by_side(lane, range(plan.count), workers)
    return head.tag


def inspect(descriptor: int, identity: Identity, *, header_tag: bytes, stored_bytes: int) -> Segments:
    """Everything that opening checks without a key, for who takes over a file that another has sealed."""
    head = _expected_head(descriptor, identity, header_tag)
    return _expected_segments(descriptor, head, identity.artefact, stored_bytes)


def _expected_head(descriptor: int, identity: Identity, header_tag: bytes) -> bytes:
    head = os.pread(descriptor, HEAD_BYTES, 0)
    log2 = head[SEGMENT_LOG2_OFFSET] if len(head) == HEAD_BYTES else 0
    if (
        log2 not in SEGMENT_LOG2
        or head[:IDENTITY_BYTES] != identity.header(log2)
        or head[STREAM_OFFSET] != STREAM_HEADER_BYTES
        or not hmac.compare_digest(head[IDENTITY_BYTES:STREAM_OFFSET], header_tag)
    ):
        raise ArtefactCorrupt(identity.artefact)
    return head


def _expected_segments(descriptor: int, head: bytes, artefact: UUID, stored_bytes: int) -> Segments:
    if os.fstat(descriptor).st_size != stored_bytes:
        raise ArtefactCorrupt(artefact)
    plan = Segments.of_stored(head[SEGMENT_LOG2_OFFSET], stored_bytes)
    if not plan.is_valid:
        raise ArtefactCorrupt(artefact, plan.last)
    return plan


class SealReader:
    """An opened artefact on a descriptor: random access by pread, shared freely between threads.

    Opening checks the head against what the caller expects (identity, length and header tag come from the database)
    and the last segment, so that the length is authentic also for who reads a range. The descriptor stays the
    caller's.
    """

    def __init__(
        self, descriptor: int, data_key: bytes, identity: Identity, *, header_tag: bytes, stored_bytes: int
    ) -> None:
        self._descriptor, self._artefact = descriptor, identity.artefact
        head = _expected_head(descriptor, identity, header_tag)
        header, stream_header = head[:IDENTITY_BYTES], head[STREAM_OFFSET:]
        if not hmac.compare_digest(header_tag, tag_of(data_key, header, stream_header)):
            raise ArtefactCorrupt(self._artefact)
        self._cipher = Cipher(data_key, header, stream_header)
        self._plan = _expected_segments(descriptor, head, identity.artefact, stored_bytes)
        self.size_bytes = self._plan.size_bytes
        self._spare: list[memoryview] = []  # buffers at rest; append and pop are atomic
        self._through_buffer(self._plan.last, lambda plain: None)

    def readinto(self, out: memoryview | bytearray, offset: int = 0, *, workers: int = 1) -> int:
        """Decrypts from `offset` on straight into `out`; only whole authenticated segments get there."""
        view = self._clipped(memoryview(out).cast("B"), offset)
        if not view:
            return 0
        end = offset + len(view)
        indices = range(self._plan.holding(offset), self._plan.holding(end - 1) + 1)

        def lane(mine: range) -> None:
            for index in mine:
                first, behind = self._plan.plain(index)
                if first >= offset and behind <= end:
                    self._open(index, view[first - offset : behind - offset])
                else:
                    self._through_buffer(index, _copier(first, view, offset))

        _side_by_side(lane, indices, workers)
        return len(view)

    def copy_to(self, descriptor: int, *, workers: int = 1) -> None:
        """The whole plaintext into a file of memory: written, not mapped, since each page that is touched first through
        a mapping costs a fault (half the time of a large artefact)."""

        def lane(mine: range) -> None:
            for index in mine:
                begin, _ = self._plan.plain(index)
                self._through_buffer(index, partial(_write_at, descriptor, offset=begin))

        _side_by_side(lane, range(self._plan.count), workers)

    def read(self, offset: int = 0, length: int | None = None) -> bytearray:
        left = max(0, self.size_bytes - offset)
        out = bytearray(left if length is None else min(length, left))
        self.readinto(out, offset)
        return out

    def file(self) -> io.RawIOBase:
        """The plaintext as a seekable read-only file, for zipfile and csv; one thread at a time."""
        return _PlainFile(self, self._plan)

    def _clipped(self, view: memoryview, offset: int) -> memoryview:
        if offset < 0:
            raise ValueError("an offset is not negative")
        return view[: max(0, min(len(view), self.size_bytes - offset))]

    def _open(self, index: int, out: memoryview) -> None:
        """One whole segment into `out`, which has exactly its length and is zero when this fails."""
        buffer = self._borrow()
        try:
            begin, end = self._plan.stored(index)
            sealed = buffer[: end - begin]
            if _read_at(self._descriptor, sealed, begin) == len(sealed):
                self._cipher.open(index, index == self._plan.last, sealed, out)
                return
        except InvalidTag:
            pass
        finally:
            self._spare.append(buffer)
        out[:] = bytes(len(out))  # decrypt_into leaves what it could not verify behind
        raise ArtefactCorrupt(self._artefact, index)

    def _through_buffer(self, index: int, use: Callable[[memoryview], None]) -> None:
        buffer = self._borrow()
        begin, end = self._plan.plain(index)
        try:
            self._open(index, buffer[: end - begin])
            use(buffer[: end - begin])
        finally:
            self._spare.append(buffer)

    def _borrow(self) -> memoryview:
        try:
            return self._spare.pop()
        except IndexError:
            return memoryview(bytearray(min(self._plan.segment_bytes, self._plan.stored_bytes)))


def _copier(first: int, view: memoryview, offset: int) -> Callable[[memoryview], None]:
    """Copies that part of a segment beginning at `first` which lies within `view`, which begins at `offset`."""

    def copy(plain: memoryview) -> None:
        begin, end = max(first, offset), min(first + len(plain), offset + len(view))
        view[begin - offset : end - offset] = plain[begin - first : end - first]

    return copy


class _PlainFile(io.RawIOBase):
    """Keeps the segment it read last, since who parses a file asks for little pieces of the same one."""

    def __init__(self, reader: SealReader, plan: Segments) -> None:
        super().__init__()
        self._reader, self._plan = reader, plan
        self._at = 0
        self._kept = bytearray()
        self._kept_begin = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._must_be_open()
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._must_be_open()
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._reader.size_bytes}[whence]
        if origin + offset < 0:
            raise OSError("before the beginning of the file")
        self._at = origin + offset
        return self._at

    def readinto(self, target: "WriteableBuffer") -> int:
        self._must_be_open()
        view = memoryview(target).cast("B")
        if not view or self._at >= self._reader.size_bytes:
            return 0
        begin, end = self._plan.plain(self._plan.holding(self._at))
        if self._at == begin and len(view) >= end - begin:
            got = self._reader.readinto(view, self._at)
        else:
            self._keep(begin, end)
            piece = memoryview(self._kept)[self._at - begin : self._at - begin + len(view)]
            view[: len(piece)] = piece
            got = len(piece)
        self._at += got
        return got

    def _keep(self, begin: int, end: int) -> None:
        if not self._kept or self._kept_begin != begin:
            self._kept = self._reader.read(begin, end - begin)
            self._kept_begin = begin

    def _must_be_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def _read_at(descriptor: int, view: memoryview, offset: int) -> int:
    got = 0
    while got < len(view) and (count := os.preadv(descriptor, [view[got:]], offset + got)):
        got += count
    return got


def _write_at(descriptor: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def _side_by_side(lane: Callable[[range], None], indices: range, workers: int) -> None:
    """Runs the lanes in threads, or here when one is enough; the first failure is raised after all have ended."""
    lanes = max(1, min(workers, len(indices) // _SEGMENTS_PER_WORKER))
    if lanes == 1:
        lane(indices)
        return
    with ThreadPoolExecutor(lanes) as pool:
        for _ in pool.map(lane, [indices[first::lanes] for first in range(lanes)]):
            pass

"""A zip archive that nobody trusts: every entry is looked at before one byte of it is inflated.

Refused: names that leave the archive, links, encryption, methods other than stored and deflated, names twice, sizes
that inflate beyond measure, too many entries, a list of entries too long to read. It knows names, no contents.
"""

from __future__ import annotations

import contextlib
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from training.data.limits import LIMITS
from training.data.source import Source, buffered
from training.errors import DataRefused

_DRIVE = re.compile(r"^[A-Za-z]:")
_END = b"PK\x05\x06"
_END_BYTES = 22
_COMMENT_BYTES = 65_535
_ZIP64_END = b"PK\x06\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
    RuntimeError,
)


class Archive:
    """The files of a zip, in the order of their names. One thread at a time."""

    def __init__(self, file: Source) -> None:
        length = _check_directory_size(file)
        with _damage("zip_unreadable", "the archive ends early or is no zip"):
            self._zip = zipfile.ZipFile(buffered(file))
        self.entries = _checked(self._zip.infolist(), length)

    @contextlib.contextmanager
    def open(self, entry: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        with _damage("zip_entry_damaged", f"entry {shown(entry.filename)} is damaged"), self._zip.open(entry) as stream:
            yield stream

    def read(self, entry: zipfile.ZipInfo, most_bytes: int) -> bytes:
        if entry.file_size > most_bytes:
            raise DataRefused(
                f"entry {shown(entry.filename)} has {entry.file_size} bytes",
                f"{most_bytes} are the most",
                code="zip_entry_too_large",
            )
        with self.open(entry) as stream:
            return stream.read(most_bytes)


def shown(name: str) -> str:
    """A name as an error may show it: quoted, printable, short."""
    return repr(name if len(name) <= 120 else name[:117] + "…")


@contextlib.contextmanager
def _damage(code: str, message: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE:
        raise DataRefused(message, "make the archive again and upload it whole", code=code) from None


def _check_directory_size(file: Source) -> int:
    """The file's length. zipfile reads the whole list of entries at once, however long: look at its length before."""
    length = file.seek(0, io.SEEK_END)
    if not length:
        raise DataRefused("the file is empty", "upload a zip archive", code="empty_file")
    begin = max(0, length - _END_BYTES - _COMMENT_BYTES - 20)
    file.seek(begin)
    tail = buffered(file).read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < _END_BYTES:
        raise DataRefused(
            "the archive ends early or is no zip", "make the archive again and upload it whole", code="zip_unreadable"
        )
    entries, directory = struct.unpack_from("<H", tail, place + 10)[0], struct.unpack_from("<L", tail, place + 12)[0]
    if place >= 20 and tail[place - 20 : place - 16] == _ZIP64_LOCATOR:
        file.seek(min(length, struct.unpack_from("<Q", tail, place - 12)[0]))
        end = buffered(file).read(56)
        if len(end) == 56 and end[:4] == _ZIP64_END:
            entries, directory = struct.unpack_from("<QQ", end, 32)
    if entries > LIMITS.entries or directory > LIMITS.directory_bytes:
        raise _too_many(entries)
    return length


def _too_many(entries: int) -> DataRefused:
    return DataRefused(
        f"the archive lists {entries} entries", f"{LIMITS.entries} are the most", code="zip_too_many_entries"
    )


def _checked(entries: list[zipfile.ZipInfo], archive_bytes: int) -> list[zipfile.ZipInfo]:
    if len(entries) > LIMITS.entries:
        raise _too_many(len(entries))
    seen: set[str] = set()
    for entry in entries:
        _check_name(entry)
        _check_content(entry)
        if entry.filename in seen:
            raise _refused("zip_entry_twice", entry, "is there twice", "rename one")
        seen.add(entry.filename)
    inflated = sum(entry.file_size for entry in entries)
    if inflated > LIMITS.inflation_free_bytes + LIMITS.inflation * archive_bytes:  # entries that share their bytes
        raise DataRefused(
            f"the archive would grow from {archive_bytes} to {inflated} bytes", "store it uncompressed", code="zip_bomb"
        )
    return sorted((entry for entry in entries if not entry.is_dir()), key=lambda entry: entry.filename)


def _refused(code: str, entry: zipfile.ZipInfo, problem: str, hint: str) -> DataRefused:
    return DataRefused(f"entry {shown(entry.orig_filename)} {problem}", hint, code=code)


def _check_name(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or _DRIVE.match(name):
        raise _refused("zip_entry_outside", entry, "leaves the archive", "rebuild the archive with relative names")
    if not name or "\\" in name or not name.isprintable() or len(name) > 4 * LIMITS.name_characters:
        raise _refused("zip_entry_name", entry, "has a name that is not usable", "rename it")


def _check_content(entry: zipfile.ZipInfo) -> None:
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused("zip_entry_link", entry, "is no plain file", "put the file itself in its place")
    if entry.flag_bits & 0x1:
        raise _refused("zip_entry_encrypted", entry, "is encrypted", "make the archive without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused("zip_entry_method", entry, "is packed by an unknown method", "use deflate")
    if entry.file_size > max(LIMITS.inflation_free_bytes, LIMITS.inflation * entry.compress_size):
        raise _refused(
            "zip_bomb",
            entry,
            f"would grow from {entry.compress_size} to {entry.file_size} bytes",
            "store it uncompressed",
        )

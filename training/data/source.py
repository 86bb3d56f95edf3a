"""The file that a data set is read from: seekable, of bytes, read by one parser after the other."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Source: TypeAlias = io.RawIOBase | io.BytesIO


class Borrowed(io.RawIOBase):
    """The same file, which stays open when this view of it and the buffer above are dropped."""

    def __init__(self, file: Source) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, target: WriteableBuffer) -> int | None:
        return self._file.readinto(target)


def buffered(file: Source, buffer_bytes: int = 2**18) -> io.BufferedReader:
    return io.BufferedReader(Borrowed(file), buffer_bytes)

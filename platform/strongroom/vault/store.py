"""Where sealed files lie: a local folder by obstore, temporary objects under `tmp/`. It holds ciphertext only.

A file gets its real name when it is whole and on the disk, never over another one. An object store in a cloud goes
behind the same class: there, who needs a descriptor gets one on a local copy of the ciphertext.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import obstore
from obstore.store import LocalStore

TEMPORARY = "tmp"


class NameTaken(Exception):
    """An object of that name is there; files are written once."""


@dataclass(frozen=True, slots=True)
class Temporary:
    """A file in the making; `descriptor` reads and writes, or writes only."""

    name: str
    descriptor: int


class Store:
    """Thread-safe: it holds a path and nothing else that changes."""

    def __init__(self, folder: Path) -> None:
        (folder / TEMPORARY).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._objects = LocalStore(folder)

    def begin(self, *, readable: bool = True) -> Temporary:
        name = f"{TEMPORARY}/{secrets.token_hex(16)}"
        access = os.O_RDWR if readable else os.O_WRONLY
        descriptor = os.open(self._folder / name, access | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return Temporary(name, descriptor)

    def publish(self, temporary: Temporary, name: str) -> None:
        """To the disk, then to its name; NameTaken where there is one already, which a rename would replace."""
        os.fsync(temporary.descriptor)
        target = self._folder / name
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._folder)
        try:
            os.link(self._folder / temporary.name, target)
        except FileExistsError:
            raise NameTaken(name) from None
        sync_folder(target.parent)
        self.discard(temporary)

    def discard(self, temporary: Temporary) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / temporary.name)

    def open(self, name: str) -> int:
        """A read-only descriptor; FileNotFoundError."""
        return os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._objects, name)

    def older_than(self, moment: datetime) -> Iterator[str]:
        """Names of all objects, temporary ones included, that were last written before `moment`."""
        for chunk in obstore.list(self._objects):
            yield from (str(entry["path"]) for entry in chunk if entry["last_modified"] < moment)

    def health(self) -> str:
        """`ok`, or what is wrong."""
        if not os.access(self._folder / TEMPORARY, os.R_OK | os.W_OK | os.X_OK):
            return "the storage folder cannot be written"
        return "ok"


def sync_folder(folder: Path) -> None:
    """A name made in it or taken from it outlives a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

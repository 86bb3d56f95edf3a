"""Key management services behind one protocol: a named key per tenant, in generations, that never leaves its provider.

Here is the provider `ring`: files, each wrapped by a master key that comes from outside the database and the storage.
Knows neither tenants nor what it wraps. Contexts bind a wrapped secret to what it is for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.vault.store import sync_folder


class KmsError(Exception):
    """Any of the failures below; the text never holds a key, a token or an address with credentials."""


class KmsUnavailable(KmsError):
    """No answer now: wait and try again."""


class KmsRefused(KmsError):
    """Wrong context, tampered secret, wrong master, no permission: never tried again."""


class KmsGone(KmsError):
    """That key or generation is destroyed, or was never in this provider."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    generation: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class Health:
    ok: bool
    detail: str


class Kms(Protocol):
    name: str

    def create(self, key: str) -> int:
        """Idempotent; the current generation."""

    def rotate(self, key: str) -> int:
        """A new current generation; the old ones unwrap on."""

    def generations(self, key: str) -> list[int]:
        """Those that still unwrap, oldest first."""

    def wrap(self, key: str, secret: bytes, context: bytes) -> Wrapped: ...

    def unwrap(self, key: str, wrapped: Wrapped, context: bytes) -> bytes: ...

    def destroy(self, key: str, generation: int | None = None) -> datetime:
        """One generation or all; when it takes effect."""

    def health(self) -> Health: ...


_MANAGED = (Path("/run/secrets"), Path("/run/credentials"))  # docker and systemd mount secrets with modes of their own
_NONCE_BYTES = 12


class RingKms:
    """`FOLDER/master` (64 hexadecimal digits, mode 0600, or a link to a docker secret or systemd credential) and
    `FOLDER/<key>/<generation>.key`. Files are made whole under another name and hard-linked, so that racing processes
    agree on one; a destroyed generation leaves an empty `.gone` behind, so that its number is never given again.
    Folder and master are made with the first key; whether they are the database's is asked by `keys.verify_ring`.
    """

    name = "ring"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, key: str) -> int:
        self._prepare()
        ever, alive = self._numbers(key, ".key", ".gone"), self.generations(key)
        return alive[-1] if alive else self._new(key, max(ever, default=0) + 1)

    def rotate(self, key: str) -> int:
        ever, alive = self._numbers(key, ".key", ".gone"), self.generations(key)
        if not alive:
            raise KmsGone(f"no key {key} in the ring")
        return self._new(key, max(ever, default=0) + 1)

    def generations(self, key: str) -> list[int]:
        return self._numbers(key, ".key")

    def wrap(self, key: str, secret: bytes, context: bytes) -> Wrapped:
        have = self.generations(key)
        if not have:
            raise KmsGone(f"no key {key} in the ring")
        return Wrapped(have[-1], _seal(self._key(key, have[-1]), secret, context))

    def unwrap(self, key: str, wrapped: Wrapped, context: bytes) -> bytes:
        return _open(self._key(key, wrapped.generation), wrapped.blob, context, "a secret does not open with its key")

    def destroy(self, key: str, generation: int | None = None) -> datetime:
        with _unavailable():
            for number in self.generations(key) if generation is None else [generation]:
                (self._folder / key / f"{number}.gone").touch(mode=0o600)
                with contextlib.suppress(FileNotFoundError):
                    _overwrite(self._path(key, number))
                    self._path(key, number).unlink()
            if (self._folder / key).is_dir():
                sync_folder(self._folder / key)
        return datetime.now(UTC)

    def health(self) -> Health:
        try:
            self._master()
        except KmsError as error:
            return Health(False, str(error))
        return Health(True, "ok")

    def _path(self, key: str, generation: int) -> Path:
        return self._folder / key / f"{generation}.key"

    def _numbers(self, key: str, *suffixes: str) -> list[int]:
        with _unavailable():
            if not self._folder.is_dir():
                raise KmsUnavailable("the ring's folder is not there")
            with contextlib.suppress(FileNotFoundError):
                files = [Path(name) for name in os.listdir(self._folder / key)]
                return sorted({int(file.stem) for file in files if file.suffix in suffixes and file.stem.isdigit()})
        return []

    def _new(self, key: str, generation: int) -> int:
        """The number was counted before the key was found missing, so that who races comes to the same file."""
        wrapped = _seal(self._master(), secrets.token_bytes(32), _context(key, generation))
        with _unavailable():
            if not (self._folder / key).is_dir():
                (self._folder / key).mkdir(mode=0o700, exist_ok=True)
                sync_folder(self._folder)
            _create(self._path(key, generation), wrapped)
        return generation

    def _key(self, key: str, generation: int) -> bytes:
        with _unavailable():
            if not self._folder.is_dir():
                raise KmsUnavailable("the ring's folder is not there")
            try:
                blob = self._path(key, generation).read_bytes()
            except FileNotFoundError:
                raise KmsGone(f"no generation {generation} of {key} in the ring") from None
        return _open(self._master(), blob, _context(key, generation), "a key does not open with the ring's master")

    def _prepare(self) -> None:
        """An empty ring gets its master; one that has keys and lost it never gets another."""
        with _unavailable():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (self._folder / "master").exists() and not self._has_keys():
                _create(self._folder / "master", secrets.token_hex(32).encode() + b"\n")

    def _has_keys(self) -> bool:
        with os.scandir(self._folder) as entries:
            return any(entry.is_dir() for entry in entries)

    def _master(self) -> bytes:
        with _unavailable():
            try:
                return _read_master(self._folder / "master")
            except FileNotFoundError:
                if self._folder.is_dir():
                    raise KmsRefused("the ring's file `master` is missing; restore it") from None
                raise KmsUnavailable("the ring's folder is not there") from None


def _context(key: str, generation: int) -> bytes:
    return f"strongroom ring key 1/{key}/{generation}".encode()


def _seal(key: bytes, secret: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, context)


def _open(key: bytes, blob: bytes, context: bytes, problem: str) -> bytes:
    try:
        return AESGCM(key).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], context)
    except (InvalidTag, ValueError):  # ValueError: too short to have a nonce
        raise KmsRefused(problem) from None


def _read_master(path: Path) -> bytes:
    managed = any(path.resolve().is_relative_to(folder) for folder in _MANAGED)
    if not managed and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KmsRefused("the ring's file `master` may be read by others; chmod 600 it")
    try:
        master = bytes.fromhex(path.read_text("ascii").strip())
    except ValueError:
        master = b""
    if len(master) != 32:
        raise KmsRefused("the ring's file `master` must hold 64 hexadecimal digits")
    return master


def _create(path: Path, content: bytes) -> None:
    """Whole or not at all; when another process was first, its file stands."""
    draft = path.parent / f".{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    sync_folder(path.parent)


def _overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(secrets.token_bytes(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KmsUnavailable(f"the ring cannot be used: {error.strerror}") from None

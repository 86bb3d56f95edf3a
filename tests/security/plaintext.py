"""Looks for bytes that must not be there: in files, open descriptors, command lines, environments, database and broker.

A needle is looked for as it is and as UTF-16, hex and base64 (at each of its three alignments). It knows where our
processes leave traces on a machine, nothing of what they do.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import redis

from tests import servers
from tests.nodes import Node, below

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # to be looked into


def disguises(needle: bytes) -> dict[str, bytes]:
    """The ways in which the needle may lie somewhere, by name."""
    found = {"plain": needle, "hex": needle.hex().encode(), "HEX": needle.hex().upper().encode()}
    if needle.isascii():
        text = needle.decode()
        found |= {"UTF-16LE": text.encode("utf-16-le"), "UTF-16BE": text.encode("utf-16-be")}
    for shift in range(3):
        # Only whole characters: those at the ends depend on what stands beside.
        encoded = base64.b64encode(bytes(shift) + needle)
        inner = encoded[0 if shift == 0 else 4 : (len(needle) + shift) // 3 * 4]
        found |= {f"base64+{shift}": inner, f"base64url+{shift}": inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


@dataclass
class Scanner:
    """What is looked for. `found` answers where, as text."""

    looked_into: set[str] = field(default_factory=set)
    _texts: dict[bytes, str] = field(default_factory=dict)

    def add(self, name: str, needle: bytes) -> None:
        assert len(needle) >= 16, "too short to mean anything"
        self._texts |= {text: f"{name} as {form}" for form, text in disguises(needle).items()}

    def in_bytes(self, data: bytes, place: str) -> list[str]:
        return [f"{said} in {place}" for text, said in self._texts.items() if text in data]

    # --- files

    def in_folder(self, folder: Path) -> list[str]:
        """Names and contents of everything below."""
        found = []
        for path in folder.rglob("*"):
            found += self.in_bytes(os.fsencode(path.name), f"the name {path}")
            found += self.in_file(path, str(path))
        self.looked_into.add(str(folder))
        return found

    def in_file(self, path: Path, place: str) -> list[str]:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return []
            return self.in_bytes(path.read_bytes(), place)
        except OSError:  # gone meanwhile
            return []

    # --- processes

    def in_processes(self, pids: Iterable[int]) -> list[str]:
        """Command lines, environments and every regular file that is held open, deleted ones too.

        A memfd is memory, which no process here can give away unless it is swapped out; it is not looked into.
        """
        found = []
        for pid in pids:
            place = Path(f"/proc/{pid}")
            for name in ("cmdline", "environ"):
                try:
                    found += self.in_bytes((place / name).read_bytes(), f"{name} of {pid}")
                except OSError:
                    continue
            found += self._in_descriptors(place)
        return found

    def _in_descriptors(self, place: Path) -> list[str]:
        found = []
        try:
            descriptors = list((place / "fd").iterdir())
        except OSError:  # ended, or none of ours to look into
            return []
        self.looked_into.add(f"{place}/fd")
        for descriptor in descriptors:
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if not target.startswith(("/memfd:", "/dev/", "/proc/")):
                found += self.in_file(descriptor, f"{descriptor} → {target}")
        return found

    # --- servers

    def in_database(self, node: Node) -> list[str]:
        """All rows as pg_dump writes them, bytes in hex."""
        if node.mode == "embedded":
            return []  # the file and its log lie in the home folder
        binaries = servers.postgres_folder()
        assert binaries is not None
        url = node.environment["STRONGROOM_SYSTEM_DATABASE_URL"].replace("//system@", "//postgres@")
        dump = subprocess.run([str(binaries / "pg_dump"), "--dbname", url], capture_output=True, check=True).stdout
        assert b"jobs_job" in dump
        self.looked_into.add("database")
        return self.in_bytes(dump, "the database")

    def in_database_log(self, node: Node) -> list[str]:
        """What was ever written, as it lies on the disk."""
        if node.mode == "embedded":
            return []
        folder = servers.session_folder() / "postgresql" / "data" / "pg_wal"
        self.looked_into.add("database log")
        return [one for path in folder.iterdir() for one in self.in_file(path, f"the database's log {path.name}")]

    def in_broker(self, node: Node) -> list[str]:
        """All that is kept now; what passes is seen by `Overheard`."""
        if node.mode == "embedded":
            return []
        found = []
        with redis.Redis.from_url(node.environment["STRONGROOM_BROKER_URL"]) as broker:
            for key in broker.scan_iter():
                found += self.in_bytes(key + b"\n" + b"\n".join(_values(broker, key)), f"the broker's {key!r}")
        self.looked_into.add("broker")
        return found


def _values(broker: redis.Redis, key: bytes) -> Iterator[bytes]:
    match broker.type(key):
        case b"string":
            yield broker.get(key) or b""
        case b"list":
            yield from broker.lrange(key, 0, -1)
        case b"set":
            yield from broker.smembers(key)
        case b"hash":
            for name, value in broker.hgetall(key).items():
                yield name + b" " + value
        case b"zset":
            yield from broker.zrange(key, 0, -1)


class Overheard:
    """Everything that is said to the broker, from the begin of the context to its end (Redis' MONITOR)."""

    def __init__(self, node: Node) -> None:
        self._url = node.environment.get("STRONGROOM_BROKER_URL") if node.mode == "production" else None
        self._socket: socket.socket | None = None
        self._heard = bytearray()

    @property
    def said(self) -> bytes:
        """As it was sent: MONITOR escapes what cannot be printed."""
        return codecs.escape_decode(bytes(self._heard))[0]  # type: ignore[attr-defined,no-any-return]  # in no stubs

    def __enter__(self) -> Overheard:
        if self._url is not None:
            parts = urlsplit(self._url)
            self._socket = socket.create_connection((str(parts.hostname), int(parts.port or 0)))
            self._socket.sendall(b"MONITOR\r\n")
            threading.Thread(target=self._listen, args=(self._socket,), daemon=True).start()
        return self

    def _listen(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while heard := connection.recv(65536):
                self._heard += heard

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()


def processes(node: Node) -> list[int]:
    """Every living process of a node."""
    return [pid for process in node.processes.values() for pid in (process.pid, *below(process.pid))]

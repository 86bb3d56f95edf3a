"""Opened keys of tenants in this process's memory: few, hidden, for minutes. Knows neither the database nor the KMS.

Threads share a Keyring; misses for one name at once share one call. A forked child starts with none.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import NoReturn

from strongroom.vault.secret_memory import SecretMemory

LIFETIME_SECONDS = 300
MOST_KEYS = 4096


_memory = SecretMemory()


def _start_anew() -> None:
    """A forked child has memory of its own for the keys that it opens; its parent's stay behind."""
    global _memory
    _memory = SecretMemory()


os.register_at_fork(after_in_child=_start_anew)


class Key:
    """A secret that shows itself only to who asks for it by name, and is wiped when nobody holds it any more."""

    __slots__ = ("_memory", "_slot")

    def __init__(self, secret: bytes) -> None:
        self._memory = _memory
        self._slot = _memory.keep(secret)

    def __del__(self) -> None:
        if not sys.is_finalizing() and hasattr(self, "_slot"):  # no slot: its making failed
            self._memory.wipe(self._slot)

    def reveal(self) -> bytes:
        return self._memory.read(self._slot)

    def __repr__(self) -> str:
        return "<Key: hidden>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is never pickled or copied")


class Keyring:
    """Keys by name, each for LIFETIME_SECONDS from its opening, however often it is used."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = MOST_KEYS) -> None:
        self._clock, self._most = clock, most
        self._lock = threading.Lock()  # guards the two below
        self._kept: OrderedDict[Hashable, tuple[float, Key]] = OrderedDict()
        self._opening: dict[Hashable, Future[Key]] = {}

    def __repr__(self) -> str:
        return f"<Keyring: {len(self._kept)} keys>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a keyring is never pickled or copied")

    def get(self, name: Hashable, open_key: Callable[[], bytes]) -> Key:
        """The key, opened by `open_key` on a miss; its exception reaches everyone who waited for it."""
        with self._lock:
            if (kept := self._fresh(name)) is not None:
                return kept
            shared = self._opening.get(name)
            mine = shared is None
            if shared is None:
                shared = self._opening[name] = Future()
        if mine:
            self._open(name, open_key, shared)
        return shared.result()

    def forget(self, matches: Callable[[Hashable], bool] = lambda name: True) -> None:
        with self._lock:
            for name in [name for name in self._kept if matches(name)]:
                del self._kept[name]
            for name in [name for name in self._opening if matches(name)]:
                del self._opening[name]  # who waits gets the key, nobody later does

    def _fresh(self, name: Hashable) -> Key | None:
        until, key = self._kept.get(name, (0.0, None))
        if key is None or until <= self._clock():
            self._kept.pop(name, None)
            return None
        self._kept.move_to_end(name)
        return key

    def _open(self, name: Hashable, open_key: Callable[[], bytes], shared: Future[Key]) -> None:
        until = self._clock() + LIFETIME_SECONDS
        try:
            key = Key(open_key())
        except BaseException as error:
            with self._lock:
                self._drop(name, shared)
            shared.set_exception(error)
            return
        with self._lock:
            if self._drop(name, shared):
                self._kept[name] = (until, key)
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        shared.set_result(key)

    def _drop(self, name: Hashable, shared: Future[Key]) -> bool:
        """Ends an opening; False where it was forgotten meanwhile."""
        if self._opening.get(name) is not shared:
            return False
        del self._opening[name]
        return True

"""Passwords, guessed at a bounded pace: who failed too often waits, and is told so before anything is computed.

Failures are counted in the process's memory for WINDOW_SECONDS: of one account from one address, of an address, of an
account. The last is high, so that nobody locks another out cheaply. Knows no pages; the login form shows what is said.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import ValidationError

from strongroom.rest.requests import from_address

WINDOW_SECONDS = 300.0
MAX_KEYS = 20_000
OF_PAIR, OF_ADDRESS, OF_ACCOUNT = 10, 50, 200
Key = tuple[int, str, str]  # how many are allowed, account or "", address or ""


class Failures:
    """When the last failures were, by key; bounded. Any thread; `_lock` guards `_times`."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: OrderedDict[Key, deque[float]] = OrderedDict()

    def wait_seconds(self, keys: Iterable[Key]) -> int:
        """0, or how long until one of them may be tried again."""
        now = self._clock()
        with self._lock:
            found = [(key, self._times[key]) for key in keys if key in self._times]
            firsts = [times[0] for key, times in found if len(times) >= key[0]]
        return max([0, *(math.ceil(first + WINDOW_SECONDS - now) for first in firsts)])

    def add(self, keys: Iterable[Key]) -> None:
        now = self._clock()
        with self._lock:
            for key in keys:
                self._times.setdefault(key, deque(maxlen=key[0])).append(now)
                self._times.move_to_end(key)
            while len(self._times) > MAX_KEYS:
                self._times.popitem(last=False)

    def forget(self, key: Key) -> None:
        with self._lock:
            self._times.pop(key, None)


FAILURES = Failures()


class PasswordBackend(ModelBackend):
    """Django's own, at that pace."""

    def authenticate(
        self, request: Any, username: str | None = None, password: str | None = None, **others: Any
    ) -> Any:
        """The person, None, or ValidationError: too many failures."""
        account, address = (username or "").strip().lower()[:254], from_address.get() or ""
        keys = [(OF_PAIR, account, address), (OF_ADDRESS, "", address), (OF_ACCOUNT, account, "")]
        if seconds := FAILURES.wait_seconds(keys):
            minutes = -(-seconds // 60)
            raise ValidationError(f"Too many attempts; try again in {minutes} minute{'s' * (minutes > 1)}.")
        user = super().authenticate(request, username=username, password=password, **others)
        if user is None:
            FAILURES.add(keys)
        else:
            FAILURES.forget(keys[0])
        return user

"""The memory of principals: when an entry holds, and what happens while the database is away."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from django.db import OperationalError
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import ids
from strongroom.access import principals as module
from strongroom.access import secrets, services
from strongroom.access.generations import Generations
from strongroom.access.models import Generation
from strongroom.access.principals import PrincipalCache
from strongroom.access.services import Principal
from strongroom.errors import Unauthenticated, Unavailable
from strongroom.tenants import scope
from tests.callers import SYSTEM, Deposit, until
from tests.depth import examples


class Clocked(Generations):
    """Generations whose database is a number in the test's hands: the two implementations of one small surface."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.value, self.away_seconds = 1, 0.0

    def look(self) -> None:
        if not self.away_seconds:
            self._numbers, self._seen_at = {"principals": self.value}, monotonic()
        else:
            self._seen_at = monotonic() - self.away_seconds


class Keys:
    """A look-up over keys in memory, counting; it can be away."""

    def __init__(self) -> None:
        self.known: dict[str, Principal] = {}
        self.asked = 0
        self.away = False

    def find(self, secret: str) -> Principal:
        self.asked += 1
        if self.away:
            raise OperationalError("gone")
        if secret not in self.known:
            raise Unauthenticated("no")
        return self.known[secret]

    def add(self, expires_at: datetime | None = None) -> str:
        secret = secrets.new()
        self.known[secret] = Principal("member", ids.new(), ids.new(), frozenset(), expires_at=expires_at)
        return secret


def cache(keys: Keys, clock: Clocked, **options: float) -> PrincipalCache:
    given = {"stale_seconds": 300.0, "max_entries": 1000} | options
    return PrincipalCache(clock, find=keys.find, **given)  # type: ignore[arg-type]  # numbers by name


def test_a_second_look_asks_nobody() -> None:
    keys, clock = Keys(), Clocked()
    remembered, secret = cache(keys, clock), keys.add()
    assert remembered.peek(secret) is None
    assert remembered.load(secret) is keys.known[secret]
    assert remembered.peek(secret) is keys.known[secret]
    assert remembered.load(secret) is keys.known[secret]
    assert keys.asked == 1


def test_a_change_makes_it_ask_again() -> None:
    keys, clock = Keys(), Clocked()
    remembered, secret = cache(keys, clock), keys.add()
    remembered.load(secret)
    clock.value += 1
    del keys.known[secret]
    with pytest.raises(Unauthenticated):
        remembered.load(secret)
    assert remembered.peek(secret) is None


def test_a_key_that_is_not_known_is_not_remembered() -> None:
    keys, clock = Keys(), Clocked()
    remembered = cache(keys, clock)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            remembered.load(secrets.new())
    assert keys.asked == 2


def test_known_keys_hold_while_the_database_is_away_and_no_longer_than_told() -> None:
    keys, clock = Keys(), Clocked()
    remembered, secret = cache(keys, clock), keys.add()
    remembered.load(secret)
    keys.away, clock.away_seconds = True, 299.0
    assert remembered.load(secret) is keys.known[secret]
    assert remembered.peek(secret) is keys.known[secret]
    clock.away_seconds = 301.0
    clock.look()
    assert remembered.peek(secret) is None
    with pytest.raises(Unavailable) as refused:
        remembered.load(secret)
    assert refused.value.code == "database_unavailable"


def test_an_unknown_key_says_503_while_the_database_is_away() -> None:
    keys, clock = Keys(), Clocked()
    keys.away, clock.away_seconds = True, 3.0
    with pytest.raises(Unavailable):
        cache(keys, clock).load(secrets.new())


def test_an_old_entry_is_asked_for_again_and_serves_while_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, clock = Keys(), Clocked()
    remembered, secret = cache(keys, clock), keys.add()
    remembered.load(secret)
    monkeypatch.setattr(module, "MAX_AGE_SECONDS", -1.0)
    remembered.load(secret)
    assert keys.asked == 2
    keys.away = True
    assert remembered.load(secret) is keys.known[secret]
    assert keys.asked == 3


def test_an_entry_does_not_outlive_its_key() -> None:
    keys, clock = Keys(), Clocked()
    secret = keys.add(datetime.now(UTC) + timedelta(seconds=0.2))
    remembered = cache(keys, clock)
    remembered.load(secret)
    assert until(lambda: remembered.peek(secret) is None)
    keys.away = True
    with pytest.raises(Unavailable):
        remembered.load(secret)


@settings(max_examples=examples(40))
@given(st.integers(1, 10), st.lists(st.integers(0, 14), max_size=40))
def test_the_memory_is_bounded_and_always_right(size: int, calls: list[int]) -> None:
    keys, clock = Keys(), Clocked()
    known = [keys.add() for _ in range(15)]
    remembered = cache(keys, clock, max_entries=size)
    for number in calls:
        assert remembered.load(known[number]) is keys.known[known[number]]
        assert sum(remembered.peek(secret) is not None for secret in known) <= size


def test_threads_and_the_event_loop_agree() -> None:
    keys, clock = Keys(), Clocked()
    remembered = cache(keys, clock)
    known = [keys.add() for _ in range(50)]
    wrong: list[str] = []

    def work() -> None:
        wrong.extend(secret for secret in known * 5 if remembered.load(secret) is not keys.known[secret])

    async def fetch() -> None:
        for secret in known:
            assert await remembered.fetch(secret) is keys.known[secret]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(fetch())
    for thread in threads:
        thread.join()
    remembered.stop()
    assert wrong == []


def test_the_real_look_up_sees_a_revocation(acme: Deposit) -> None:
    remembered = PrincipalCache(Generations(0.0), stale_seconds=300.0)
    secret = acme.key("predict").secret or ""
    found = remembered.load(secret)
    assert (found.tenant_id, found.scopes) == (acme.id, {"predict"})
    with scope.tenant(acme.id):
        services.revoke(SYSTEM, found.id)
    with pytest.raises(Unauthenticated):
        remembered.load(secret)


@pytest.mark.django_db(transaction=True)
def test_a_thread_of_its_own_tells_of_a_change(settings: object) -> None:
    generations = Generations(0.02)
    generations.start()
    try:
        assert until(lambda: generations.silent_seconds() < 10)
        before = generations.number("principals")
        Generation.bump("principals")
        assert until(lambda: generations.number("principals") != before)
    finally:
        generations.stop()


def test_looking_too_early_asks_nobody(db: None, django_assert_num_queries: Callable[[int], object]) -> None:
    generations = Generations(1000.0)
    generations.look()
    with django_assert_num_queries(0):  # type: ignore[attr-defined]  # pytest-django's fixture
        generations.look()

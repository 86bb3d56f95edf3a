"""The cache of opened keys: minutes, bounded, one call for all who wait, and nothing that shows a key."""

import copy
import pickle
import threading
from collections.abc import Callable

import pytest

from strongroom.vault.keyring import LIFETIME_SECONDS, Key, Keyring


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Opener:
    """Counts how often a key was asked for."""

    def __init__(self, secret: bytes = b"secret") -> None:
        self.secret, self.calls = secret, 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.secret


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keyring(clock: Clock) -> Keyring:
    return Keyring(clock=clock, most=3)


def test_a_key_is_opened_once_and_kept_for_five_minutes_at_most(keyring: Keyring, clock: Clock) -> None:
    opener = Opener()
    for _ in range(9):
        clock.now += LIFETIME_SECONDS / 9 - 1
        assert keyring.get("a", opener).reveal() == b"secret"
    assert opener.calls == 1
    clock.now += LIFETIME_SECONDS / 9 + 9
    keyring.get("a", opener)
    assert opener.calls == 2
    assert LIFETIME_SECONDS <= 300


def test_the_five_minutes_begin_when_the_key_is_asked_for(keyring: Keyring, clock: Clock) -> None:
    opener = Opener()

    def slow() -> bytes:
        clock.now += 200
        return opener()

    keyring.get("a", slow)
    clock.now += 101
    keyring.get("a", opener)
    assert opener.calls == 2


def test_the_key_that_was_not_used_for_longest_makes_room(keyring: Keyring) -> None:
    openers = {name: Opener(name.encode()) for name in "abcd"}
    for name in "abcad":
        keyring.get(name, openers[name])
    for name in "acd":
        keyring.get(name, openers[name])
    assert [openers[name].calls for name in "abcd"] == [1, 1, 1, 1]
    keyring.get("b", openers["b"])
    assert openers["b"].calls == 2


def test_misses_for_one_key_at_once_share_one_call(keyring: Keyring) -> None:
    entered, go, calls = threading.Event(), threading.Event(), []

    def slow() -> bytes:
        calls.append(1)
        entered.set()
        go.wait(10)
        return b"secret"

    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(keyring.get("a", slow).reveal())) for _ in range(8)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    assert keyring.get("b", Opener()).reveal() == b"secret"  # another name does not wait
    go.set()
    for thread in threads:
        thread.join(10)
    assert got == [b"secret"] * 8
    assert len(calls) == 1


def test_a_failure_reaches_everyone_who_waits_and_is_not_kept(keyring: Keyring) -> None:
    def fail() -> bytes:
        raise ConnectionError("no answer")

    for _ in range(2):
        with pytest.raises(ConnectionError):
            keyring.get("a", fail)
    assert keyring.get("a", Opener()).reveal() == b"secret"


def test_a_key_forgotten_while_it_is_opened_is_not_kept(keyring: Keyring) -> None:
    opener = Opener()

    def open_and_forget() -> bytes:
        keyring.forget()
        return opener()

    assert keyring.get("a", open_and_forget).reveal() == b"secret"
    keyring.get("a", opener)
    assert opener.calls == 2


def test_only_the_names_that_match_are_forgotten(keyring: Keyring) -> None:
    openers = {name: Opener() for name in "ab"}
    for name in "ab":
        keyring.get(name, openers[name])
    keyring.forget(lambda name: name == "a")
    for name in "ab":
        keyring.get(name, openers[name])
    assert (openers["a"].calls, openers["b"].calls) == (2, 1)


@pytest.mark.parametrize("show", [repr, str, "{!r}".format, ascii])
def test_a_key_does_not_show(show: Callable[[object], str], keyring: Keyring) -> None:
    key = keyring.get("a", Opener(b"marker"))
    assert "marker" not in show(key)
    assert "marker" not in show(keyring)
    assert "marker" not in show([key, {"key": key}])


@pytest.mark.parametrize("carry", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_is_not_carried_away(carry: Callable[[object], object], keyring: Keyring) -> None:
    for thing in (Key(b"secret"), keyring):
        with pytest.raises(TypeError, match="never"):
            carry(thing)

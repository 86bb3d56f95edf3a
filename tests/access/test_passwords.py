"""Signing in with a password: guessed at a bounded pace, by account and address."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from strongroom.access import passwords
from strongroom.access.passwords import OF_ACCOUNT, OF_ADDRESS, OF_PAIR, WINDOW_SECONDS, Failures
from tests.callers import Deposit

pytestmark = pytest.mark.slow

PASSWORD = "a long password"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(passwords, "FAILURES", Failures(clock))
    return clock


@pytest.fixture
def person(acme: Deposit) -> Deposit:
    acme.owner.user.set_password(PASSWORD)
    acme.owner.user.save()
    return acme


def sign_in(name: str, password: str, address: str = "10.1.1.1") -> HttpResponse:
    return Client(REMOTE_ADDR=address).post("/admin/login/", {"username": name, "password": password})


def test_the_right_password_signs_in_and_forgets_the_failures_before_it(person: Deposit, clock: Clock) -> None:
    for _ in range(3):
        for _ in range(OF_PAIR - 1):
            assert sign_in("owner@acme.test", "guess").status_code == 200
        assert sign_in("Owner@ACME.test", PASSWORD).status_code == 302


def test_after_too_many_failures_even_the_right_password_waits(person: Deposit, clock: Clock) -> None:
    for _ in range(OF_PAIR):
        assert b"Too many attempts" not in sign_in("owner@acme.test", "guess").content
    refused = sign_in(" OWNER@acme.test", PASSWORD)
    assert (refused.status_code, b"Too many attempts; try again in 5 minutes." in refused.content) == (200, True)
    assert sign_in("owner@acme.test", PASSWORD, "10.1.1.2").status_code == 302  # its owner, from elsewhere
    clock.now += WINDOW_SECONDS + 1
    assert sign_in("owner@acme.test", PASSWORD).status_code == 302


def test_an_address_that_tries_one_account_after_the_other_waits(person: Deposit, clock: Clock) -> None:
    for number in range(OF_ADDRESS):
        sign_in(f"n{number}@acme.test", "guess")
    assert b"Too many attempts" in sign_in("owner@acme.test", PASSWORD).content
    assert sign_in("owner@acme.test", PASSWORD, "10.1.1.2").status_code == 302


def test_an_account_that_is_tried_from_everywhere_waits(clock: Clock) -> None:
    failures = Failures(clock)
    key = (OF_ACCOUNT, "a", "")
    for _ in range(OF_ACCOUNT):
        assert not failures.wait_seconds([key])
        failures.add([key])
    assert failures.wait_seconds([key]) == WINDOW_SECONDS


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(passwords, "MAX_KEYS", 10)
    failures: Any = Failures(clock)
    for number in range(100):
        failures.add([(1, str(number), "")])
    assert len(failures._times) == 10
    assert failures.wait_seconds([(1, "99", "")]) == WINDOW_SECONDS
    assert not failures.wait_seconds([(1, "0", "")])

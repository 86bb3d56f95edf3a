"""Requests a second of one process."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.access import rates
from strongroom.access.rates import Bucket, Rates
from strongroom.errors import LimitReached


@given(st.floats(0.5, 50), st.lists(st.floats(0, 2), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate_and_one_seconds_worth(rate: float, pauses: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = [1000.0]
        patch.setattr(rates, "monotonic", lambda: now[0])
        bucket, given_out = Bucket(rate), 0
        for pause in pauses:
            now[0] += pause
            given_out += bucket.take(rate) == 0.0
        assert given_out <= max(1.0, rate) + rate * sum(pauses) + 1e-6


def test_a_refused_request_is_told_when_to_come_again() -> None:
    rates_of_one, tenant = Rates(1), uuid4()
    rates_of_one.take(tenant, 0.5, "the tenant's")
    with pytest.raises(LimitReached, match=r"the tenant's limit of 0\.5 requests a second") as caught:
        rates_of_one.take(tenant, 0.5, "the tenant's")
    assert (caught.value.code, caught.value.retry_after_seconds) == ("rate_limited", 2)


def test_a_rate_of_nothing_lets_nothing_through_but_the_first() -> None:
    rates_of_one, tenant = Rates(1), uuid4()
    rates_of_one.take(tenant, 0, "the tenant's")
    with pytest.raises(LimitReached):
        rates_of_one.take(tenant, 0, "the tenant's")


def test_each_has_a_bucket_of_its_own() -> None:
    rates_of_one = Rates(1)
    for _ in range(3):
        rates_of_one.take(uuid4(), 1, "the tenant's")

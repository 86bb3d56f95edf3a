"""Rates and concurrency of one process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.signature import Signature, Tensor
from strongroom.edge import limits
from strongroom.edge.limits import Bucket, Limits
from strongroom.edge.snapshot import Served
from strongroom.errors import LimitReached

TENSOR = Tensor("x", "FP32", (-1, 2))


def served(**changes: Any) -> Served:
    tenant, version = uuid4(), uuid4()
    found = Served(
        tenant_id=tenant,
        tenant=str(tenant),
        deployment_id=uuid4(),
        name="d",
        state="ready",
        model="m",
        version=1,
        version_id=version,
        engine_version=str(version),
        signature=Signature((TENSOR,), (TENSOR,)),
        policy=None,
        requests_per_second=None,
        concurrency=None,
        deadline_ms=1000,
        tenant_requests_per_second=None,
    )
    return replace(found, **changes)


@given(st.floats(0.5, 50), st.lists(st.floats(0, 2), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate_and_one_seconds_worth(rate: float, pauses: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = [1000.0]
        patch.setattr(limits, "monotonic", lambda: now[0])
        bucket, given_out = Bucket(rate), 0
        for pause in pauses:
            now[0] += pause
            given_out += bucket.take(rate) == 0.0
        assert given_out <= max(1.0, rate) + rate * sum(pauses) + 1e-6


def test_a_refused_request_is_told_when_to_come_again() -> None:
    limits_of_one = Limits(1)
    deployment = served(requests_per_second=0.5)
    limits_of_one.enter(deployment)
    with pytest.raises(LimitReached) as caught:
        limits_of_one.enter(deployment)
    assert (caught.value.code, caught.value.retry_after_seconds) == ("rate_limited", 2)


def test_a_rate_of_nothing_lets_nothing_through_but_the_first() -> None:
    limits_of_one = Limits(1)
    deployment = served(tenant_requests_per_second=0)
    limits_of_one.enter(deployment)
    with pytest.raises(LimitReached):
        limits_of_one.enter(deployment)


def test_concurrency_counts_what_is_running() -> None:
    limits_of_two = Limits(2)
    deployment = served(concurrency=4)  # three for each of two processes: callers do not spread evenly
    for _ in range(3):
        limits_of_two.enter(deployment)
    with pytest.raises(LimitReached) as caught:
        limits_of_two.enter(deployment)
    assert (caught.value.code, caught.value.status) == ("concurrency_limited", 429)
    limits_of_two.leave(deployment)
    limits_of_two.enter(deployment)


def test_tenants_do_not_share_a_bucket() -> None:
    limits_of_one = Limits(1)
    for _ in range(3):
        limits_of_one.enter(served(tenant_requests_per_second=1))

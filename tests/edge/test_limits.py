"""Concurrency and places of one process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from inference.signature import Signature, Tensor
from strongroom.access.rates import Rates
from strongroom.deployments.served import Served
from strongroom.edge import http, limits
from strongroom.edge.limits import Limits, Places
from strongroom.errors import LimitReached

TENSOR = Tensor("x", "FP32", (-1, 2))


def served(**changes: Any) -> Served:
    tenant, version = uuid4(), uuid4()
    found = Served(
        tenant_id=tenant,
        deployment_id=uuid4(),
        name="d",
        model="m",
        version=1,
        version_id=version,
        interface=Signature((TENSOR,), (TENSOR,)),
        policy=None,
        requests_per_second=None,
        concurrency=None,
        deadline_ms=1000,
    )
    return replace(found, **changes)


def test_concurrency_counts_what_is_running() -> None:
    limits_of_two = Limits(2, Rates(2))
    deployment = served(concurrency=4)  # three for each of two processes: callers do not spread evenly
    for _ in range(3):
        limits_of_two.enter(deployment)
    with pytest.raises(LimitReached) as caught:
        limits_of_two.enter(deployment)
    assert (caught.value.code, caught.value.status) == ("concurrency_limited", 429)
    limits_of_two.leave(deployment)
    limits_of_two.enter(deployment)


def test_one_tenant_takes_no_more_than_its_places_and_gives_them_back() -> None:
    places = Places("uploads", of_all=3, of_one=2)
    one, other, third = uuid4(), uuid4(), uuid4()
    with places.taken(one), places.taken(one):
        with pytest.raises(LimitReached, match="2 uploads are open already") as told, places.taken(one):
            pass
        assert told.value.code == "concurrency_limited"
        with places.taken(other), pytest.raises(LimitReached, match="3 uploads"), places.taken(third):
            pass
        with places.taken(third):
            pass
    with places.taken(one), places.taken(other), places.taken(other):
        pass


def test_a_large_body_has_a_place_while_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODIES", Places("large bodies", of_all=1, of_one=1))
    tenant = uuid4()

    def request(length: int | None) -> http.Request:
        headers = [(b"transfer-encoding", b"chunked")] if length is None else [(b"content-length", b"%d" % length)]

        async def receive() -> http.Message:
            return {"type": "http.request", "body": b"x"}

        return http.Request({"method": "POST", "path": "/", "headers": headers, "query_string": b""}, receive)

    with limits.BODIES.taken(tenant):
        for length in (100_000, None):
            with pytest.raises(LimitReached):
                asyncio.run(limits.body(request(length), tenant, 1 << 20))
        assert asyncio.run(limits.body(request(1), tenant, 1 << 20)) == b"x"
    assert asyncio.run(limits.body(request(100_000), tenant, 1 << 20)) == b"x"

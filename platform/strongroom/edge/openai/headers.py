"""OpenAI's headers of an answer: `openai-processing-ms`, and `x-ratelimit-*` of the narrowest limit of requests and the
narrowest budget of tokens, where there are any. What a process knows without asking anybody: its share of the rates,
and of a budget what it last heard."""

from __future__ import annotations

import math
from time import perf_counter

from strongroom.access.rates import RATES, Rate
from strongroom.access.services import Principal
from strongroom.deployments.served import Served
from strongroom.deployments.speech import Call
from strongroom.edge import http
from strongroom.metering.services import LEASES, LIMITS

Headers = list[tuple[bytes, bytes]]


def headers(request: http.Request, call: Call) -> Headers:
    """Of an answer: the time that it took, and what is left."""
    principal, found = call.principal, [(b"openai-processing-ms", b"%d" % (1000 * (perf_counter() - request.began)))]
    if (rate := _rate(principal, call.served)) is not None:
        found += _three("requests", rate.limit, rate.remaining, rate.seconds)
    limits = LIMITS.peek(principal)
    if limits and (budget := LEASES.narrowest(limits)) is not None:
        found += _three("tokens", budget.tokens, budget.remaining, budget.seconds)
    return found


def _rate(principal: Principal, served: Served) -> Rate | None:
    limits = ((principal.tenant_id, principal.requests_per_second), (served.deployment_id, served.requests_per_second))
    known = [RATES.remaining(id, rate) for id, rate in limits if rate is not None]
    return min(known, key=lambda rate: rate.remaining) if known else None


def _three(what: str, limit: int, remaining: int, seconds: float | None) -> Headers:
    """The time as Go writes durations, which is how OpenAI does; none where it never comes."""
    found = [(f"x-ratelimit-limit-{what}", str(limit)), (f"x-ratelimit-remaining-{what}", str(remaining))]
    if seconds is not None and seconds < math.inf:
        found.append((f"x-ratelimit-reset-{what}", f"{seconds:.0f}s" if seconds >= 1 else f"{seconds * 1000:.0f}ms"))
    return [(name.encode(), value.encode()) for name, value in found]

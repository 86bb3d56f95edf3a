"""Who asks: an API key, from memory where it is known, or the panel's session with its CSRF token.

A session is checked, token included, before the first byte of a body is read. Knows no routes.
"""

from __future__ import annotations

import functools

from django.conf import settings

from strongroom.access import sessions
from strongroom.access.middleware import bearer
from strongroom.access.principals import PRINCIPALS
from strongroom.access.services import Principal
from strongroom.edge import database, http
from strongroom.rest.requests import client_address

TRUSTED = frozenset(settings.ENVIRONMENT.listed("trusted_proxies"))
_BEARER = b"bearer "
REMEMBERED_CHARACTERS = 256  # of a header that anybody may make long


def known(request: http.Request) -> Principal | None:
    """`of` a key that is in memory, in a microsecond; None sends the caller there."""
    authorization = request.headers.get(b"authorization")
    if authorization is None or authorization[:7].lower() != _BEARER:
        return None
    principal = PRINCIPALS.peek(authorization[7:].decode("latin-1"))
    if principal is not None:
        if principal.allowed_networks:
            principal.require_address(address(request))
        principal.take_request()
    return principal


async def of(request: http.Request) -> Principal:
    """The principal, whose tenant's rate counts the request; as `again`, and LimitReached."""
    principal = await again(request)
    principal.take_request()
    return principal


async def again(request: http.Request) -> Principal:
    """The principal without counting: of a request that goes on. Unauthenticated, Denied, Unavailable."""
    if (authorization := request.header(b"authorization")) or b"cookie" not in request.headers:
        principal = await PRINCIPALS.fetch(bearer(authorization) if authorization else "")
        principal.require_address(address(request))
        return principal
    return await database.run(sessions.from_asgi, request.scope)


def address(request: http.Request) -> str | None:
    client = request.scope.get("client")
    remote, forwarded = client[0] if client else None, request.header(b"x-forwarded-for") if TRUSTED else ""
    if len(forwarded) > REMEMBERED_CHARACTERS:
        return client_address(remote, forwarded, TRUSTED)
    return _address(remote, forwarded)


@functools.lru_cache(4096)
def _address(remote: str | None, forwarded_for: str) -> str | None:
    return client_address(remote, forwarded_for, TRUSTED)

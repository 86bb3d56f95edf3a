"""Who a signed-in session is: the person, the tenant chosen in the panel, and the CSRF check by hand.

Django's requests have their session from the middleware; the edge makes one from its ASGI scope (`from_asgi`). The
tenant is the session's `tenant_id`; X-Strongroom-Tenant (a tenant's name or id) overrides it for a member; without
either it is the oldest membership. Knows nothing of keys.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from strongroom import ids
from strongroom.access import services
from strongroom.access.services import Principal
from strongroom.errors import Denied, Unauthenticated
from strongroom.tenants.models import Member

TENANT_KEY = "tenant_id"
TENANT_HEADER = "X-Strongroom-Tenant"


def principal(request: HttpRequest) -> Principal:
    """The member behind a signed-in request. Unauthenticated key_missing, Denied csrf_failed, role_missing.

    Call outside any scope. The token is checked for every method but GET, HEAD, OPTIONS and TRACE.
    """
    user = get_user(request)
    if not user.is_authenticated:
        raise Unauthenticated(
            "no API key was sent; send it as 'Authorization: Bearer sr_…', or sign in", code="key_missing"
        )
    check_csrf(request)
    wanted = request.headers.get(TENANT_HEADER)
    member = pick(services.memberships(user.pk), request.session.get(TENANT_KEY), wanted)
    if member is None:
        detail = "you are no member of that tenant" if wanted is not None else "you are a member of no tenant"
        raise Denied(detail, code="role_missing", hint="ask the tenant's owner for an invitation")
    return services.principal_of(member)


def from_asgi(scope: dict[str, Any]) -> Principal:
    """`principal` for a bare ASGI scope, before its body is read. Blocks: call it in a thread."""
    request = ASGIRequest(scope, io.BytesIO())
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    return principal(request)


def pick(found: Sequence[Member], chosen: object, wanted: str | None = None) -> Member | None:
    """The membership that counts: the `wanted` one or none; else the `chosen` one; else the oldest."""
    if wanted is not None:
        tenant_id = ids.parse("ten", wanted)
        return next((m for m in found if m.tenant.name == wanted or m.tenant_id == tenant_id), None)
    return next((member for member in found if str(member.tenant_id) == chosen), found[0] if found else None)


class _Check(CsrfViewMiddleware):
    """Django's check, which says why instead of answering."""

    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


def _no_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def check_csrf(request: HttpRequest) -> None:
    """Denied csrf_failed where a session's unsafe request has not the token of its cookie."""
    check = _Check(_no_view)
    check.process_request(request)
    if check.process_view(request, _no_view, (), {}) is not None:
        raise Denied(
            "the CSRF token is missing or wrong",
            code="csrf_failed",
            hint="send the csrftoken cookie's value as X-CSRFToken, from a page of this origin",
        )

"""Who asks, for every request that reaches Django; the scope with its transaction around the view and its rendering.

/api/v1   an API key or a signed-in session → `request.principal`, the tenant's scope; failures are problem+json
/admin    a signed-in member → `request.member`, `.memberships()`, `.principal`, the scope of the chosen tenant
/operator a signed-in operator → `request.actor`, the operator's scope

Two middlewares, so that another may stand between them, knowing who asks and outside the transaction. An answer of 400
or more rolls the transaction back. GET, HEAD, OPTIONS and TRACE only read. Pages before sign-in, and everything else,
run without a scope, where tenants' tables cannot be used. Knows nothing of what any view does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.urls import Resolver404, resolve

from strongroom import logs
from strongroom.access import sessions
from strongroom.access.principals import PRINCIPALS
from strongroom.access.services import Principal, memberships, principal_of
from strongroom.errors import NotFound, Unauthenticated
from strongroom.rest import problem
from strongroom.rest.requests import from_address
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Member

Respond = Callable[[HttpRequest], HttpResponseBase]


class Asked(HttpRequest):
    """What the two add to a request: views and the console read it."""

    principal: Principal | None
    member: Member | None
    memberships: Callable[[], list[Member]]  # of /admin only: the switch between tenants
    actor: Actor  # of /operator only; elsewhere it is principal.actor
    view: Any  # of /api only: the view's class, where it has one
    before_commit: Callable[[HttpResponseBase], None]  # where one is left: called with a good answer


READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
COUNTED = "strongroom.counted"  # in the ASGI scope of what the edge reads once more for a caller who waits
WITHOUT_SCOPE = ("login/", "logout/", "jsi18n/")  # of both sites


class PrincipalMiddleware:
    """Who asks. Runs in the thread of the view (it is synchronous), after all of Django's own."""

    def __init__(self, get_response: Respond) -> None:
        self._get_response = get_response

    def __call__(self, given: HttpRequest) -> HttpResponseBase:
        request = cast(Asked, given)
        path = request.path_info
        if path.startswith("/api/"):
            return problem.guarded(lambda: self._api(request))
        for site, find in (("/admin/", _find_member), ("/operator/", _find_operator)):
            if path.startswith(site) and not path.removeprefix(site).startswith(WITHOUT_SCOPE):
                find(request)
        return self._answer(request)

    def _api(self, request: Asked) -> HttpResponseBase:
        request.view = _view_of(request)
        if not getattr(request.view, "is_open", False):
            request.principal = authenticate(request)
        return self._answer(request)

    def _answer(self, request: Asked) -> HttpResponseBase:
        response = self._get_response(request)
        if getattr(request, "principal", None) is not None:
            response.headers.setdefault("Cache-Control", "no-store")
        return response


def _find_member(request: Asked) -> None:
    request.member = request.principal = None
    request.memberships = list
    user = request.user
    if user.is_authenticated:
        found = memberships(user.pk)
        request.memberships = lambda: found
        request.member = sessions.pick(found, request.session.get(sessions.TENANT_KEY))
    if request.member is not None:
        request.principal = principal_of(request.member)


def _find_operator(request: Asked) -> None:
    request.member = request.principal = None
    user = request.user
    if user.is_authenticated and user.is_active and user.is_operator:
        request.actor = Actor("operator", user.pk, from_address.get(), logs.request_id.get())


class ScopeMiddleware:
    """The view and its rendering inside the scope of who asks; the last before the view."""

    def __init__(self, get_response: Respond) -> None:
        self._get_response = get_response

    def __call__(self, given: HttpRequest) -> HttpResponseBase:
        request = cast(Asked, given)
        if (entered := _scope_of(request)) is None:
            return self._get_response(request)
        if problem.is_api(request):
            return problem.guarded(lambda: self._inside(entered, request))
        return self._inside(entered, request)

    def _inside(self, entered: AbstractContextManager[None], request: Asked) -> HttpResponseBase:
        """What failed is undone."""
        with entered:
            response = self._get_response(request)
            if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                response.render()
            if response.status_code >= 400 and _writes(request):
                transaction.set_rollback(True, using=scope.alias())
            elif (before_commit := getattr(request, "before_commit", None)) is not None:
                before_commit(response)
        return response


def _scope_of(request: Asked) -> AbstractContextManager[None] | None:
    if (principal := getattr(request, "principal", None)) is not None:
        return scope.tenant(principal.tenant_id, write=_writes(request))
    if hasattr(request, "actor"):
        return scope.operator("the operator's site", write=_writes(request))
    return None


def authenticate(request: HttpRequest) -> Principal:
    """The principal of a request: by its Authorization header, else by its session; its tenant's rate counts it.

    Call outside any scope.
    """
    if (header := request.headers.get("Authorization")) is None:
        principal = sessions.principal(request)
    else:
        principal = PRINCIPALS.load(bearer(header))
        principal.require_address(from_address.get())
    if COUNTED not in getattr(request, "scope", ()):
        principal.take_request()
    return principal


def bearer(header: str) -> str:
    """The secret of an Authorization header. Unauthenticated key_malformed for any scheme but Bearer."""
    scheme, _, secret = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("the Authorization header must be 'Bearer sr_…'", code="key_malformed")
    return secret.strip()


def _view_of(request: HttpRequest) -> Any:
    """The view (its class, where it has one). NotFound before anybody is asked who they are: routes are public."""
    try:
        view = resolve(request.path_info).func
        return getattr(view, "cls", view)
    except Resolver404:
        raise NotFound(f"there is nothing at {ascii(request.path)[1:-1]}; /docs lists the routes") from None


def _writes(request: HttpRequest) -> bool:
    return request.method not in READS

"""Who asks, for every request that reaches Django; the scope with its transaction around the view and its rendering.

/api/v1   an API key or a signed-in session → `request.principal`, the tenant's scope; failures are problem+json
/admin    a signed-in member → `request.member`, `.memberships()`, `.principal`, the scope of the chosen tenant
/operator a signed-in operator → `request.actor`, the operator's scope

An answer of 400 or more rolls the transaction back. GET, HEAD, OPTIONS and TRACE only read. Pages before sign-in, and
everything else, run without a scope, where tenants' tables cannot be used. Knows nothing of what any view does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, cast

from django.conf import settings
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


class Asked(HttpRequest):
    """What this middleware adds to a request: views and the console read it."""

    principal: Principal | None
    member: Member | None
    memberships: Callable[[], list[Member]]  # of /admin only: the switch between tenants
    actor: Actor  # of /operator only; elsewhere it is principal.actor
    idempotency: Any


READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
COUNTED = "strongroom.counted"  # in the ASGI scope of what the edge reads once more for a caller who waits
WITHOUT_SCOPE = ("login/", "logout/", "jsi18n/")  # of both sites


class PrincipalMiddleware:
    """Runs in the thread of the view (it is synchronous), the last before it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response
        self._idempotency: Any = import_module(settings.IDEMPOTENCY_SERVICES)  # a room above this one

    def __call__(self, given: HttpRequest) -> HttpResponseBase:
        request = cast(Asked, given)
        path = request.path_info
        if path.startswith("/api/"):
            return self._api(request)
        for site, serve in (("/admin/", self._member), ("/operator/", self._operator)):
            if path.startswith(site) and not path.removeprefix(site).startswith(WITHOUT_SCOPE):
                return serve(request)
        return self._get_response(request)

    # --- the native API

    def _api(self, request: Asked) -> HttpResponseBase:
        try:
            view = _view_of(request)
            if getattr(view, "is_open", False):
                return self._get_response(request)
            principal = authenticate(request)
            request.principal = principal
            answer: HttpResponseBase = self._idempotency.answered(
                request, principal, view, lambda: self._in_tenant(request, principal)
            )
            return answer
        except Exception as exception:
            error = problem.from_exception(exception)
            if error.code == "internal":
                problem.log_failure(exception)
            return problem.response(error)

    def _in_tenant(self, request: Asked, principal: Principal) -> HttpResponseBase:
        response = self._inside(scope.tenant(principal.tenant_id, write=_writes(request)), request)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    # --- the two sites

    def _member(self, request: Asked) -> HttpResponseBase:
        request.member = request.principal = None
        request.memberships = list
        user = request.user
        if user.is_authenticated:
            found = memberships(user.pk)
            request.memberships = lambda: found
            request.member = sessions.pick(found, request.session.get(sessions.TENANT_KEY))
        if request.member is None:
            return self._get_response(request)
        request.principal = principal_of(request.member)
        return self._in_tenant(request, request.principal)

    def _operator(self, request: Asked) -> HttpResponseBase:
        request.member = request.principal = None
        user = request.user
        if not (user.is_authenticated and user.is_active and user.is_operator):
            return self._get_response(request)
        request.actor = Actor("operator", user.pk, from_address.get(), logs.request_id.get())
        return self._inside(scope.operator("the operator's site", write=_writes(request)), request)

    def _inside(self, entered: AbstractContextManager[None], request: Asked) -> HttpResponseBase:
        """The view and its rendering inside the scope; what failed is undone."""
        with entered:
            response = self._get_response(request)
            if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                response.render()
            if response.status_code >= 400 and _writes(request):
                transaction.set_rollback(True, using=scope.alias())
            elif (kept := getattr(request, "idempotency", None)) is not None:
                kept.keep(response)
        return response


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

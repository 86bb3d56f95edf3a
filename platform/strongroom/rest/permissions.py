"""Which scope a view needs for which method: the view says it in `scopes`, this asks for it. Deny by default."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission


class ScopeRequired(BasePermission):
    """Reads `view.scopes`, for example `{"GET": "jobs:read", "POST": "jobs:write"}`; HEAD is a GET.

    A view that answers a method without naming its scope is refused to everybody: a fault of ours, not of the caller.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        method = "GET" if request.method == "HEAD" else request.method
        scope = getattr(view, "scopes", {}).get(method)
        if scope is None:
            if method == "OPTIONS" or not hasattr(view, method.lower()):
                raise MethodNotAllowed(request.method)
            raise ImproperlyConfigured(f"{type(view).__name__} names no scope for {method}")
        request.principal.require(scope)
        return True

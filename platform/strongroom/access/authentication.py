"""DRF's handle on who asks. The middleware found it already; DRF loads this while it loads itself: no views here."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication

from strongroom.access.services import Principal


class PrincipalAuthentication(BaseAuthentication):
    """`request.auth` is the principal; there is no Django user behind a key."""

    def authenticate(self, request: Any) -> tuple[None, Principal] | None:
        principal = getattr(request._request, "principal", None)
        return None if principal is None else (None, principal)

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="strongroom"'

"""The scopes of the native API, what includes what, and the scopes of each role. Pure tables."""

from __future__ import annotations

from collections.abc import Iterable

from strongroom.tenants.models import Role

READS = frozenset({"datasets:read", "jobs:read", "models:read", "deployments:read", "tenant:read", "usage:read"})
_VIEWER = READS
_DEVELOPER = _VIEWER | {"predict", "datasets:write", "jobs:write", "models:write", "deployments:write"}
_ADMIN = _DEVELOPER | {"keys:write", "tenant:write", "models:download", "audit:read"}
ALL = _ADMIN
ORDERED = sorted(ALL)

ROLES: dict[str, frozenset[str]] = {
    Role.VIEWER: _VIEWER,
    Role.DEVELOPER: _DEVELOPER,
    Role.ADMIN: _ADMIN,
    Role.OWNER: ALL,
}


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes with what they include: each `:write` brings its `:read`. Unknown names fall away."""
    held = ALL.intersection(scopes)
    return held | ALL.intersection(f"{scope.removesuffix(':write')}:read" for scope in held if scope.endswith(":write"))

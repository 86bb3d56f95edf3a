"""Who is asking, for every query: exactly one of tenant(id), operator(reason), none.

A context variable that each request, task and command sets together with its transaction; managers of tenants' tables
raise at `none`. On PostgreSQL the scope is told to the database inside the transaction (`strongroom.tenant`), and
operator work goes through the connection `system` where there is one, so that row security can be switched on without
touching a caller. Knows nothing of roles and API keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connections, transaction


class NoScope(RuntimeError):
    """A tenant's table was used outside any scope, or a row of one tenant inside another's."""


@dataclass(frozen=True, slots=True)
class Scope:
    """tenant_id set: that tenant. reason set: the platform itself, and why. Neither: nobody."""

    tenant_id: UUID | None = None
    reason: str | None = None

    @property
    def is_operator(self) -> bool:
        return self.reason is not None


NONE = Scope()
_scope: ContextVar[Scope] = ContextVar("scope", default=NONE)


def current() -> Scope:
    """The scope of this context; NONE by default."""
    return _scope.get()


def required() -> Scope:
    """The scope, or NoScope where there is none."""
    scope = _scope.get()
    if scope == NONE:
        raise NoScope("no scope: wrap the call in scope.tenant(id) or scope.operator(reason)")
    return scope


def tenant_id() -> UUID:
    """The tenant of this scope; NoScope for operator and none."""
    scope = required()
    if scope.tenant_id is None:
        raise NoScope("this needs a tenant's scope, not the operator's")
    return scope.tenant_id


def alias() -> str:
    """The database connection of this scope."""
    return "system" if _scope.get().is_operator and "system" in settings.DATABASES else "default"


@contextmanager
def tenant(tenant_id: UUID, *, write: bool = True) -> Iterator[None]:
    """Everything inside is one tenant's, in one transaction.

    `write=False` reads only: on SQLite, where a transaction takes the one write lock, it runs without.
    """
    with _enter(Scope(tenant_id=tenant_id), write):
        yield


@contextmanager
def operator(reason: str, *, write: bool = True) -> Iterator[None]:
    """Everything inside is the platform's own work over all tenants, in one transaction; `reason` says which."""
    with _enter(Scope(reason=reason), write):
        yield


# Until the transaction's end. A process that stands still inside one would hold its rows' locks for as long.
_SETTINGS = (
    "SELECT set_config('strongroom.tenant', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)"
)
IDLE_IN_TRANSACTION = "10s"


@contextmanager
def _enter(scope: Scope, write: bool) -> Iterator[None]:
    outer = _scope.get()
    if outer != NONE and outer.tenant_id != scope.tenant_id:
        raise NoScope("a scope cannot be entered inside another tenant's or the operator's")
    token = _scope.set(scope)
    try:
        using = alias()
        if not write and connections[using].vendor == "sqlite":
            yield
            return
        with transaction.atomic(using=using):
            if outer == NONE and connections[using].vendor == "postgresql":
                with connections[using].cursor() as cursor:
                    cursor.execute(_SETTINGS, [str(scope.tenant_id or ""), IDLE_IN_TRANSACTION])
            yield
    finally:
        _scope.reset(token)


class ScopeRouter:
    """Sends each query through the connection of the scope; migrations through the owner's."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return alias()

    db_for_write = db_for_read

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == ("owner" if "owner" in settings.DATABASES else "default")

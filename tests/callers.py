"""Callers of the native API inside one process: Django's client with a key or a session, and tenants to call as.

For what Django serves; the edge's routes need a node (tests/nodes.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.test import Client

from strongroom.access.services import create_for_owner
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Member, Role, User
from strongroom.tenants.services import create_tenant

SYSTEM = Actor("system")


@dataclass
class Api:
    """Calls with one key, or with none."""

    secret: str | None = None
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False, enforce_csrf_checks=True))

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        """`headers` by their names with `_` for `-`; a body that is no bytes goes as JSON."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.secret is not None:
            given.setdefault("Authorization", f"Bearer {self.secret}")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        content_type = given.pop("Content-Type", "application/json")
        return self.client.generic(method, path, data, content_type, headers=given)

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> HttpResponse:
        return self.call("POST", path, body, **headers)

    def delete(self, path: str, **headers: str) -> HttpResponse:
        return self.call("DELETE", path, **headers)


@dataclass(frozen=True)
class Deposit:
    """A tenant, its owner and a key with all scopes."""

    id: UUID
    name: str
    owner: Member
    api: Api

    def key(self, *scopes: str, **rights: Any) -> Api:
        """A caller with a narrower key of this tenant."""
        made = self.api.post("/api/v1/keys", {"name": "narrow", "scopes": list(scopes), **rights})
        assert made.status_code == 201, made.content
        return Api(made.json()["secret"])

    def member(self, role: Role, email: str) -> User:
        """A person who is in this tenant, too."""
        user = User.objects.filter(email=email).first() or User.objects.create_user(email, "a long password")
        with scope.tenant(self.id):
            Member.objects.create(user=user, role=role)
        return user


def deposit(name: str) -> Deposit:
    """A new tenant."""
    made = create_tenant(name, f"owner@{name}.test")
    with scope.tenant(made.tenant.id):
        _, secret = create_for_owner(made.owner, "first")
    return Deposit(made.tenant.id, name, made.owner, Api(secret))


def signed_in(user: User) -> Api:
    """A browser of that person, with a CSRF token in its cookie."""
    api = Api()
    api.client.force_login(user)
    return api


def until(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it comes to hold."""
    end = monotonic() + seconds
    while monotonic() < end:
        if holds():
            return True
        sleep(0.05)
    return holds()

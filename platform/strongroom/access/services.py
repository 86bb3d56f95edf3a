"""Who asks, and what they may: principals found by key or membership; keys made, revoked and rotated.

A key never holds more than its maker: scopes, deployments, networks and life time, at its making and at its rotation.
Each change raises the generation `principals` in its own transaction, which every process polls (principals.py).
Knows nothing of HTTP; sessions are in sessions.py.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from strongroom import ids
from strongroom.access import scopes as scope_table
from strongroom.access import secrets
from strongroom.access.models import ApiKey, Generation
from strongroom.access.rights import Principal, Wish
from strongroom.audit.services import record
from strongroom.errors import Invalid, NotFound, Unauthenticated
from strongroom.rest.bodies import made_by, moment, optional_moment
from strongroom.tenants import scope
from strongroom.tenants import services as tenants
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Member, TenantState

__all__ = [
    "NewKey",
    "Principal",
    "create",
    "create_for_owner",
    "document",
    "find",
    "get",
    "keys",
    "maker",
    "memberships",
    "note_use",
    "principal_of",
    "revoke",
    "rotate",
]


def find(secret: str) -> Principal:
    """The principal of a key, from the database. Unauthenticated: key_missing, key_malformed or key_invalid.

    Unknown, revoked, expired and a tenant that is not active look alike. Call outside any scope; the hot paths go
    through principals.PrincipalCache.
    """
    if not secret:
        raise Unauthenticated(
            "no API key was sent; send it as 'Authorization: Bearer sr_…', or sign in", code="key_missing"
        )
    if not secrets.well_formed(secret):
        raise Unauthenticated(
            "the API key is not well formed: it has 82 characters from 'sr_' on, and its checksum must match; "
            "copy it again, whole",
            code="key_malformed",
        )
    digest = secrets.digest(secret)
    with scope.operator("key look-up", write=False):
        key = ApiKey.objects.select_related("tenant").filter(secret_sha256=digest).first()
    known = key is not None and hmac.compare_digest(bytes(key.secret_sha256), digest)
    if key is None or not known or not _is_live(key) or key.tenant.state != TenantState.ACTIVE:
        raise Unauthenticated("the API key is unknown, revoked or expired; use another one", code="key_invalid")
    return _principal_of_key(key)


def maker(kind: str, id: UUID | None) -> Principal:
    """Who made a row, with the rights that it has now, for work that goes on without it. In the tenant's scope.

    Unauthenticated where the key was revoked or has expired, the person is no member, or the tenant is not active.
    """
    if kind == "key":
        key = ApiKey.objects.select_related("tenant").filter(id=id or UUID(int=0)).first()
        if key is not None and _is_live(key) and key.tenant.state == TenantState.ACTIVE:
            return _principal_of_key(key)
        raise Unauthenticated("the API key that asked for this was revoked or has expired", code="key_invalid")
    if kind == "member":
        member = Member.objects.select_related("tenant").filter(id=id or UUID(int=0), user__is_active=True).first()
        if member is not None and member.tenant.state == TenantState.ACTIVE:
            return principal_of(member)
        raise Unauthenticated("who asked for this is no member of the tenant any more", code="key_invalid")
    return Principal(kind=kind, id=id or UUID(int=0), tenant_id=scope.tenant_id(), scopes=scope_table.ALL)


def _principal_of_key(key: ApiKey) -> Principal:
    return Principal(
        kind="key",
        id=key.id,
        tenant_id=key.tenant_id,
        scopes=scope_table.expand(key.scopes),
        allowed_models=frozenset(key.allowed_models),
        allowed_networks=tuple(ip_network(network) for network in key.allowed_networks),
        expires_at=key.expires_at,
        requests_per_second=tenants.limits(key.tenant)["requests_per_second"],
    )


def memberships(user_id: UUID) -> list[Member]:
    """A person's memberships in active tenants, oldest first, with user and tenant at hand. Call outside any scope."""
    with scope.operator("memberships of a signed-in person", write=False):
        rows = Member.objects.select_related("tenant", "user").filter(
            user_id=user_id, user__is_active=True, tenant__state=TenantState.ACTIVE
        )
        return list(rows.order_by("id"))


def principal_of(member: Member) -> Principal:
    """The principal of a member: the role's scopes."""
    return Principal(
        kind="member",
        id=member.id,
        tenant_id=member.tenant_id,
        scopes=scope_table.ROLES.get(member.role, frozenset()),
        requests_per_second=tenants.limits(member.tenant)["requests_per_second"],
    )


_on_rotate: list[Callable[[UUID, UUID], None]] = []


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which is in no place but this one."""

    key: ApiKey
    secret: str


def create(
    maker: Principal,
    *,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    allowed_models: Iterable[str] = (),
    allowed_networks: Iterable[str] = (),
) -> NewKey:
    """A new key of the scope's tenant. Denied when it would hold more than its maker; Invalid."""
    wish = Wish.of(name, scopes, expires_at, allowed_models, allowed_networks)
    wish.check()
    wish.check_maker(maker)
    return _issue(maker.actor, wish, "key.created")


def revoke(actor: Actor, key_id: UUID) -> None:
    """Ends a key; a second time changes nothing. NotFound."""
    key = get(key_id)
    if key.revoked_at is None:
        _end(actor, key)


def rotate(maker: Principal, key_id: UUID) -> NewKey:
    """A new key with the old one's rights; the old one ends in the same transaction. NotFound, Denied, Invalid."""
    old = get(key_id)
    if not _is_live(old):
        raise Invalid.field(
            "", "is the rotation of a key that is revoked or expired", code="key_ended", hint="create a new key"
        )
    wish = Wish.of(old.name, old.scopes, old.expires_at, old.allowed_models, old.allowed_networks)
    wish.check_maker(maker)
    if not _end(maker.actor, old):
        raise Invalid.field("", "is the rotation of a key that is revoked", code="key_ended", hint="create a new key")
    made = _issue(maker.actor, wish, "key.rotated", replaces=str(old.id))
    for moved in _on_rotate:
        moved(old.id, made.key.id)
    return made


def on_rotate(moved: Callable[[UUID, UUID], None]) -> None:
    """Registers what a higher room moves from the old key to the new, in the rotation's transaction."""
    _on_rotate.append(moved)


def create_for_owner(owner: Member, name: str) -> tuple[ApiKey, str]:
    """A key with all that its owner may, and its secret: for commands. Inside the tenant's scope."""
    made = create(principal_of(owner), name=name, scopes=scope_table.ROLES[owner.role])
    return made.key, made.secret


def note_use(principal: Principal, at: datetime) -> None:
    """Writes when a key was last used. Outside any scope; a member's use is not kept."""
    if principal.kind == "key":
        with scope.tenant(principal.tenant_id):
            ApiKey.objects.filter(id=principal.id).update(last_used_at=at)


def keys() -> QuerySet[ApiKey]:
    """The scope's keys, ended ones included."""
    return ApiKey.objects.all()


def document(key: ApiKey) -> dict[str, Any]:
    """The key's body in the native API, without its secret."""
    return {
        "id": ids.text("key", key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "expires_at": optional_moment(key.expires_at),
        "allowed_models": key.allowed_models,
        "allowed_networks": key.allowed_networks,
        "created_at": moment(key.created_at),
        "created_by": made_by(key),
        "last_used_at": optional_moment(key.last_used_at),
        "revoked_at": optional_moment(key.revoked_at),
    }


def get(key_id: UUID) -> ApiKey:
    """One key of the scope's tenant, or NotFound."""
    if (key := ApiKey.objects.filter(id=key_id).first()) is None:
        raise NotFound("there is no such key; GET /api/v1/keys lists them")
    return key


def _is_live(key: ApiKey) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > timezone.now())


def _end(actor: Actor, key: ApiKey) -> bool:
    """Revokes by condition, so that of two at once one does it."""
    now = timezone.now()
    if not ApiKey.objects.filter(id=key.id, revoked_at=None).update(revoked_at=now):
        return False
    key.revoked_at = now
    Generation.bump("principals")
    record(actor, "key.revoked", "key", key.id)
    return True


def _issue(actor: Actor, wish: Wish, action: str, **detail: Any) -> NewKey:
    secret = secrets.new()
    key = ApiKey.objects.create(
        name=wish.name,
        prefix=secrets.prefix(secret),
        secret_sha256=secrets.digest(secret),
        scopes=list(wish.scopes),
        expires_at=wish.expires_at,
        allowed_models=list(wish.allowed_models),
        allowed_networks=[str(network) for network in wish.allowed_networks],
        created_by_kind=actor.kind,
        created_by_id=actor.id,
    )
    Generation.bump("principals")
    record(actor, action, "key", key.id, scopes=list(wish.scopes), **detail)
    return NewKey(key, secret)

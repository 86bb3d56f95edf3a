"""Who asks, and what they may: principals found by key or membership; keys made, revoked and rotated.

A key never holds more than its maker: scopes, deployments, networks and life time, at its making and at its rotation.
Each change raises the generation `principals` in its own transaction, which every process polls (principals.py).
Knows nothing of HTTP; sessions are in sessions.py.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from strongroom import ids, logs
from strongroom.access import scopes as scope_table
from strongroom.access import secrets
from strongroom.access.models import ApiKey, Generation
from strongroom.audit.services import record
from strongroom.errors import Denied, FieldError, Invalid, NotFound, Unauthenticated
from strongroom.rest.bodies import made_by, moment, optional_moment
from strongroom.rest.problem import nearest
from strongroom.rest.requests import from_address
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Member, TenantState

Network = IPv4Network | IPv6Network
_MORE = "is more than the maker holds"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, fit to be cached and shared between threads: a key or a member, always of one tenant.

    `scopes` has what each scope includes. Empty `allowed_models` (deployments) and `allowed_networks` mean all.
    """

    kind: str  # "key" or "member"
    id: UUID
    tenant_id: UUID
    tenant_name: str
    scopes: frozenset[str]
    allowed_models: frozenset[str] = frozenset()
    allowed_networks: tuple[Network, ...] = ()
    expires_at: datetime | None = None

    def require(self, scope_name: str) -> None:
        """Denied scope_missing, the scope in the hint."""
        if scope_name not in self.scopes:
            who = "key" if self.kind == "key" else "role"
            raise Denied(f"this {who} lacks the scope '{scope_name}'", code="scope_missing", hint=scope_name)

    def require_model(self, deployment: str) -> None:
        """Denied model_not_allowed when the key is bound to other deployments."""
        if self.allowed_models and deployment not in self.allowed_models:
            raise Denied(
                f"this key may not use the deployment '{deployment}'",
                code="model_not_allowed",
                hint=f"it may use: {', '.join(sorted(self.allowed_models))}",
            )

    def require_address(self, address: str | None) -> None:
        """Denied network_not_allowed when the key is bound to networks that `address` is not in."""
        if not self.allowed_networks:
            return
        try:
            found = ip_address(address or "")
        except ValueError:
            found = None
        if found is None or not any(found in network for network in self.allowed_networks):
            raise Denied("this key may not be used from this address", code="network_not_allowed")

    @property
    def actor(self) -> Actor:
        """This principal as the one who does something in the request that runs now."""
        return Actor(self.kind, self.id, from_address.get(), logs.request_id.get())

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


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
    return Principal(
        kind="key",
        id=key.id,
        tenant_id=key.tenant_id,
        tenant_name=key.tenant.name,
        scopes=scope_table.expand(key.scopes),
        allowed_models=frozenset(key.allowed_models),
        allowed_networks=tuple(ip_network(network) for network in key.allowed_networks),
        expires_at=key.expires_at,
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
        tenant_name=member.tenant.name,
        scopes=scope_table.ROLES.get(member.role, frozenset()),
    )


def member_principal(user_id: UUID, tenant_id: UUID) -> Principal | None:
    """The principal of a person in a tenant; None without a membership there, or while either is not active."""
    return next((principal_of(member) for member in memberships(user_id) if member.tenant_id == tenant_id), None)


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
    wish = _Wish.of(name, scopes, expires_at, allowed_models, allowed_networks)
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
    wish = _Wish.of(old.name, old.scopes, old.expires_at, old.allowed_models, old.allowed_networks)
    wish.check_maker(maker)
    if not _end(maker.actor, old):
        raise Invalid.field("", "is the rotation of a key that is revoked", code="key_ended", hint="create a new key")
    return _issue(maker.actor, wish, "key.rotated", replaces=str(old.id))


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


def _issue(actor: Actor, wish: _Wish, action: str, **detail: Any) -> NewKey:
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


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a new key should hold."""

    name: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    allowed_models: tuple[str, ...]
    allowed_networks: tuple[Network, ...]

    @classmethod
    def of(
        cls,
        name: str,
        scopes: Iterable[str],
        expires_at: datetime | None,
        models: Iterable[str],
        networks: Iterable[str],
    ) -> _Wish:
        return cls(name, tuple(sorted(set(scopes))), expires_at, tuple(sorted(set(models))), _networks(networks))

    def check(self) -> None:
        """What is wrong whoever asks; Invalid with all of it."""
        problems = [
            FieldError("/scopes", "unknown_scope", f"has no such scope: '{name}'", nearest(name, scope_table.ALL))
            for name in self.scopes
            if name not in scope_table.ALL
        ]
        if not self.scopes:
            problems.append(FieldError("/scopes", "empty", "must name at least one scope", "for example 'predict'"))
        if not self.name.strip():
            problems.append(FieldError("/name", "blank", "must not be empty", "for example 'ci'"))
        if self.expires_at is not None and self.expires_at <= timezone.now():
            problems.append(FieldError("/expires_at", "past", "must be in the future", "or null for no end"))
        if problems:
            raise Invalid.all(problems)

    def check_maker(self, maker: Principal) -> None:
        """Denied where the key would hold more than its maker."""
        missing = [name for name in self.scopes if not scope_table.expand([name]) <= maker.scopes]
        if missing:
            raise Denied(
                f"a key cannot hold more than its maker, who lacks: {', '.join(missing)}",
                code="scope_missing",
                errors=[FieldError("/scopes", "scope_missing", _MORE, name) for name in missing],
            )
        if maker.allowed_models and not (self.allowed_models and maker.allowed_models.issuperset(self.allowed_models)):
            raise _more("model_not_allowed", "/allowed_models", "deployments", sorted(maker.allowed_models))
        if maker.allowed_networks and not self._inside(maker.allowed_networks):
            raise _more(
                "network_not_allowed", "/allowed_networks", "networks", [str(n) for n in maker.allowed_networks]
            )
        if maker.expires_at is not None and (self.expires_at is None or self.expires_at > maker.expires_at):
            raise Invalid.field(
                "/expires_at",
                "must not be after its maker's end",
                code="after_maker",
                hint=f"at most {maker.expires_at.isoformat(timespec='seconds')}",
            )

    def _inside(self, outer: Sequence[Network]) -> bool:
        return bool(self.allowed_networks) and all(
            any(_within(network, wide) for wide in outer) for network in self.allowed_networks
        )


def _within(network: Network, wide: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(wide, IPv4Network) and network.subnet_of(wide)
    return isinstance(wide, IPv6Network) and network.subnet_of(wide)


def _more(code: str, path: str, what: str, held: Sequence[str]) -> Denied:
    detail = f"a key cannot hold more than its maker, who is bound to the {what} {', '.join(held)}"
    return Denied(detail, code=code, errors=[FieldError(path, code, _MORE, ", ".join(held))])


def _networks(given: Iterable[str]) -> tuple[Network, ...]:
    """Networks in their one text form; an address alone is a network of one. Invalid with all that are none."""
    found, problems = [], []
    for position, text in enumerate(given):
        try:
            found.append(ip_network(text))
        except ValueError:
            hint = "for example '10.0.0.0/8' or '2001:db8::/32'"
            problems.append(FieldError(f"/allowed_networks/{position}", "network", f"is no network: '{text}'", hint))
    if problems:
        raise Invalid.all(problems)
    return tuple(sorted(set(found), key=str))

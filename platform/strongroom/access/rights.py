"""Who asks and what they may (`Principal`), and what a new key may hold (`Wish`): never more than its maker.

Scopes, deployments, networks and life time alike. Values, no database; what a principal asks is counted in rates.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from uuid import UUID

from django.utils import timezone

from strongroom import logs
from strongroom.access import scopes as scope_table
from strongroom.access.rates import RATES
from strongroom.errors import Denied, FieldError, Invalid
from strongroom.rest.problem import nearest
from strongroom.rest.requests import from_address
from strongroom.tenants.actor import Actor

Network = IPv4Network | IPv6Network
_MORE = "is more than the maker holds"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, fit to be cached and shared between threads: a key or a member, always of one tenant.

    `scopes` has what each scope includes. Empty `allowed_models` (deployments) and `allowed_networks` mean all.
    `requests_per_second` is the tenant's, of all its principals together.
    """

    kind: str  # "key" or "member"
    id: UUID
    tenant_id: UUID
    scopes: frozenset[str]
    allowed_models: frozenset[str] = frozenset()
    allowed_networks: tuple[Network, ...] = ()
    expires_at: datetime | None = None
    requests_per_second: float | None = None
    # The ids as text and as a number, made once: a UUID's hash is Python's own and slow.
    tenant: str = field(init=False)
    text: str = field(init=False)
    lane: int = field(init=False)  # whose turn it is in a cell's queue

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant", str(self.tenant_id))
        object.__setattr__(self, "text", str(self.id))
        object.__setattr__(self, "lane", self.id.int >> 1 & 0x7FFF_FFFF)

    def take_request(self) -> None:
        """Counts one request against the tenant's rate; LimitReached."""
        if self.requests_per_second is not None:
            RATES.take(self.tenant_id, self.requests_per_second, "the tenant's")

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


@dataclass(frozen=True, slots=True)
class Wish:
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
    ) -> Wish:
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

"""Making tenants, members and operators; a tenant's limits. Higher rooms register what a new tenant needs from them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from strongroom.errors import Conflict, FieldError, Invalid, NotFound
from strongroom.tenants import names, scope
from strongroom.tenants.models import Member, Role, Tenant, User

DEFAULT_LIMITS: dict[str, int | None] = {
    "max_running_jobs": 4,
    "storage_bytes": 100 * 1024**3,
    "upload_bytes": 10 * 1024**3,
    "requests_per_second": None,
}

_on_created: list[Callable[[UUID], None]] = []


def on_created(call: Callable[[UUID], None]) -> None:
    """Registers what a higher room does for a new tenant, in the same transaction and the tenant's scope."""
    _on_created.append(call)


@dataclass(frozen=True, slots=True)
class NewTenant:
    tenant: Tenant
    owner: Member
    password: str | None  # None where the person had an account that the operator vouches for


def create_tenant(name: str, owner_email: str, display_name: str = "") -> NewTenant:
    """A tenant with its owner; the owner's account is made when missing. Conflict name_taken, Invalid."""
    names.check("name", name)
    email = _email(owner_email)
    if Tenant.objects.filter(name=name).exists():
        raise Conflict(f"a tenant named {name!r} exists; choose another name", code="name_taken")
    tenant = Tenant(name=name, display_name=display_name)
    with scope.tenant(tenant.id):
        tenant.save()
        user, password = vouched(email)
        owner = Member.objects.create(user=user, role=Role.OWNER)
        for call in _on_created:
            call(tenant.id)
    return NewTenant(tenant, owner, password)


def create_operator(email: str) -> tuple[User, str | None]:
    """An account that may open the operator's site; the password where the account is new or was a tenant's."""
    user, password = vouched(email)
    user.is_operator = True
    user.save(update_fields=["is_operator"])
    return user, password


def vouched(email: str) -> tuple[User, str | None]:
    """The operator's word: the person with this address, made when missing; the password where the account is new.

    An account that a tenant made gets a new password, too: whoever made it may have kept the first. Invalid.
    """
    user, password = _user(_email(email), None)
    if user.made_by is not None:
        password = reset_password(user)
    return user, password


def reset_password(user: User) -> str:
    """A new password, which ends every session; from now on the operator vouches for whose account it is."""
    password = secrets.token_urlsafe(18)
    user.set_password(password)
    user.made_by = None
    user.save(update_fields=["password", "made_by"])
    return password


def account(email: str, tenant_id: UUID) -> tuple[User, str | None]:
    """The person with this address, made for the tenant when missing; the password where the account is new.

    Invalid. Conflict where another tenant made it: who did may know the password, and would come along with it.
    """
    user, password = _user(_email(email), tenant_id)
    if user.made_by not in (None, tenant_id):
        raise Conflict(
            f"the account {user.email} was made by another organisation, which may know its password; "
            f"let the operator vouch for it: manage.py resetpassword {user.email}",
            code="name_taken",
            errors=[
                FieldError(
                    "/email", "not_vouched", "is an account of another organisation", "ask the operator to vouch for it"
                )
            ],
        )
    return user, password


def limits(tenant: Tenant) -> dict[str, Any]:
    """The tenant's limits, the defaults filled in."""
    return DEFAULT_LIMITS | {key: value for key, value in tenant.limits.items() if key in DEFAULT_LIMITS}


def set_limits(name: str, changes: dict[str, int | None]) -> dict[str, Any]:
    """Changes some of a tenant's limits, None for no limit; what they are now. NotFound."""
    if (row := Tenant.objects.filter(name=name).first()) is None:
        raise NotFound(f"there is no tenant {name!r}")
    with scope.tenant(row.id):
        row = Tenant.objects.select_for_update().get(id=row.id)
        row.limits = row.limits | changes
        row.save(update_fields=["limits"])
    return limits(row)


def _email(text: str) -> str:
    email = text.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid.field("/email", f"must be an e-mail address, is {text!r}") from None
    return email


def _user(email: str, made_by: UUID | None) -> tuple[User, str | None]:
    if (user := User.objects.filter(email=email).first()) is not None:
        return user, None
    password = secrets.token_urlsafe(18)
    return User.objects.create_user(email, password, made_by=made_by), password

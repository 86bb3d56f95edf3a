"""The people of a tenant: taken in, given another role, let go. Only an owner makes or unmakes an owner; one stays.

Every change is in the audit log and raises the generation `principals` (apps.py), so that it counts within a second.
Inside the tenant's scope. Knows no pages.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from strongroom.access.models import ApiKey
from strongroom.access.services import Principal
from strongroom.audit.services import record
from strongroom.errors import Conflict, Denied, FieldError, Invalid
from strongroom.tenants import services as tenants
from strongroom.tenants.models import Member, Role


@dataclass(frozen=True, slots=True)
class Added:
    """A new member, and the password of the account where it was made for them."""

    member: Member
    password: str | None


def add(maker: Principal, *, email: str, role: str) -> Added:
    """Takes a person in; their account is made when missing.

    Invalid, Denied role_missing, Conflict name_taken (a member already, or an account that another tenant made).
    """
    wanted = _role(role)
    _check_owner(maker, wanted)
    user, password = tenants.account(email, maker.tenant_id)
    member, created = Member.objects.get_or_create(user=user, defaults={"role": wanted})
    if not created:
        raise Conflict(
            f"{user.email} is a member already",
            code="name_taken",
            errors=[FieldError("/email", "name_taken", "is a member already", "change the role instead")],
        )
    record(maker.actor, "member.add", "member", member.id, role=wanted.value, account="new" if password else "known")
    return Added(member, password)


def change_role(maker: Principal, member: Member, role: str) -> None:
    """Invalid, Denied role_missing, Conflict (the last owner)."""
    wanted = _role(role)
    _check_owner(maker, wanted, Role(member.role))
    if wanted != Role.OWNER:
        _check_another_owner(member)
    before, member.role = member.role, wanted
    member.save(update_fields=["role"])
    record(maker.actor, "member.role", "member", member.id, before=str(before), role=wanted.value)


def remove(maker: Principal, member: Member) -> None:
    """The membership ends; the account stays, and so do the keys that they made. Denied, Conflict (the last owner)."""
    _check_owner(maker, Role(member.role))
    _check_another_owner(member)
    record(maker.actor, "member.remove", "member", member.id, role=str(member.role))
    member.delete()


def note_password(own: Principal) -> None:
    """A member has changed the own password: recorded with this tenant, without anything of the password."""
    record(own.actor, "member.password", "member", own.id)


def live_keys(member: Member) -> int:
    """Keys that this member made and that nobody revoked."""
    return ApiKey.objects.filter(created_by_kind="member", created_by_id=member.id, revoked_at=None).count()


def _role(given: str) -> Role:
    if given not in Role.values:
        raise Invalid.field("/role", f"must be one of {', '.join(Role.values)}, is '{given}'", code="choice")
    return Role(given)


def _check_owner(maker: Principal, *roles: Role) -> None:
    if Role.OWNER in roles and not _owners().filter(id=maker.id).exists():
        detail = "only an owner makes or unmakes an owner"
        raise Denied(detail, code="role_missing", errors=[FieldError("/role", "role_missing", detail)])


def _check_another_owner(member: Member) -> None:
    """All owners' rows are locked, so that two who leave at once do not both go."""
    owners = {owner.id for owner in _owners().select_for_update()}
    if owners == {member.id}:
        raise Conflict(f"{member.user.email} is the last owner; make another member owner first", code="in_use")


def _owners() -> QuerySet[Member]:
    return Member.objects.filter(role=Role.OWNER)

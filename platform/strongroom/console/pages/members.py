"""The people of a tenant in the panel: the list, taking somebody in, changing a role, letting somebody go."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from strongroom.access import members
from strongroom.console.forms.members import ROLES, MemberForm
from strongroom.console.members import TenantAdmin, principal_of
from strongroom.console.templatetags.console import ago
from strongroom.tenants.models import Member, Role


class MemberAdmin(TenantAdmin):
    slug, list_title = "members", "Members"
    view_scope, change_scope = "tenant:read", "tenant:write"
    adds = {"invite": "Add member"}
    object_template = "console/member.html"
    verbs = ("assign", "remove")
    list_display = ("shown_person", "role", "shown_seen", "shown_created")
    list_filter = ("role",)
    list_select_related = ("user",)
    ordering = ("id",)

    @admin.display(description="person")
    def shown_person(self, member: Member) -> str:
        return member.user.email

    @admin.display(description="last signed in")
    def shown_seen(self, member: Member) -> str:
        return ago(member.user.last_login) if member.user.last_login else "never"

    @admin.display(description="since", ordering="id")
    def shown_created(self, member: Member) -> str:
        return ago(member.created_at)

    def object_context(self, request: HttpRequest, obj: Member) -> dict[str, Any]:
        roles = [(role, said) for role, said in ROLES if self._is_owner(request) or role != Role.OWNER]
        return {"roles": roles, "keys": members.live_keys(obj), "is_oneself": obj.id == principal_of(request).id}

    def invite(self, request: HttpRequest) -> HttpResponse:
        form = MemberForm(request.POST or None, is_owner=self._is_owner(request))

        def add(document: dict[str, Any]) -> HttpResponse:
            return self._added(request, members.add(principal_of(request), **document))

        return self.filled(form, add) or self.form_page(request, "console/member_new.html", "Add member", form)

    def assign(self, request: HttpRequest, member: Member) -> None:
        members.change_role(principal_of(request), member, request.POST.get("role", ""))
        messages.success(request, f"{member.user.email} is {member.role} now.")

    def remove(self, request: HttpRequest, member: Member) -> HttpResponse:
        email, keys = member.user.email, members.live_keys(member)
        members.remove(principal_of(request), member)
        messages.success(request, f"{email} is no member any more.")
        if keys:
            messages.warning(request, f"{keys} API keys that they made still work: see API keys.")
        return redirect(self.url("changelist"))

    def _is_owner(self, request: Any) -> bool:
        return bool(request.member.role == Role.OWNER)

    def _added(self, request: HttpRequest, made: members.Added) -> HttpResponse:
        """A new account's password is in this answer and in no other place."""
        answer = self.page(
            request, "console/member_added.html", "Member added", added=made.member, password=made.password
        )
        answer["Cache-Control"] = "no-store"
        return answer

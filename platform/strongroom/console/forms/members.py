"""The form that takes a person into a tenant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from unfold import widgets

from strongroom.console.forms.document import DocumentForm, choice
from strongroom.tenants.models import Role

ROLES = [
    (Role.VIEWER, "viewer: sees everything but the audit"),
    (Role.DEVELOPER, "developer: and uploads, trains, deploys, predicts"),
    (Role.ADMIN, "admin: and keys, members, audit"),
    (Role.OWNER, "owner: and other owners"),
]


class MemberForm(DocumentForm):
    """An address and a role."""

    email = forms.CharField(label="E-mail", widget=widgets.UnfoldAdminEmailInputWidget(attrs={"autocomplete": "off"}))
    role = choice("Role", [])

    pointers = {"/email": "email", "/role": "role"}

    def __init__(self, data: Any, *, is_owner: bool) -> None:
        super().__init__(data, initial={"role": Role.DEVELOPER})
        fields: Any = self.fields
        fields["role"].choices = [(role, said) for role, said in ROLES if is_owner or role != Role.OWNER]

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"email": given.get("email") or "", "role": given.get("role") or ""}

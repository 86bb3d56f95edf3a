"""The form that makes an API key: REST's own body, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from unfold import widgets

from strongroom.access.api import NewKeyBody
from strongroom.access.scopes import ORDERED
from strongroom.access.services import Principal
from strongroom.console.forms.document import DocumentForm, long_text, several, text
from strongroom.deployments import services as deployments
from strongroom.rest.bodies import moment

MEANINGS = {
    "predict": "call deployments",
    "datasets:read": "see data sets",
    "datasets:write": "upload and delete data sets",
    "jobs:read": "see jobs, their logs and metrics",
    "jobs:write": "submit, cancel and delete jobs",
    "models:read": "see models",
    "models:write": "import, stage and delete models",
    "models:download": "take models out",
    "deployments:read": "see deployments",
    "deployments:write": "deploy, switch and stop",
    "keys:write": "make and revoke keys",
    "tenant:read": "see limits and use",
    "tenant:write": "change the tenant and its members",
    "usage:read": "see what was used",
    "audit:read": "see who did what",
}


class KeyForm(DocumentForm):
    """POST /keys; offers only what the maker holds."""

    name = text("Name", placeholder="ci", help="What it is for.")
    scopes = several("Scopes", [])
    expires_at = forms.DateTimeField(
        label="Expires (UTC)",
        required=False,
        help_text="Empty: never.",
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
        widget=widgets.UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
    )
    allowed_models = several("Deployments", [], help="None chosen: all.")
    allowed_networks = long_text(
        "Networks", rows=3, help="Addresses that it may be used from, a line each, such as 10.0.0.0/8. Empty: all."
    )

    field_order = ["name", "expires_at"]
    wide = frozenset({"allowed_networks"})
    pointers = {
        "/name": "name",
        "/scopes": "scopes",
        "/expires_at": "expires_at",
        "/allowed_models": "allowed_models",
        "/allowed_networks": "allowed_networks",
    }

    def __init__(self, data: Any, maker: Principal) -> None:
        super().__init__(data)
        fields: Any = self.fields
        fields["scopes"].choices = [(name, f"{name} — {MEANINGS[name]}") for name in ORDERED if name in maker.scopes]
        names = deployments.live().order_by("name").values_list("name", flat=True)
        fields["allowed_models"].choices = [(name, name) for name in names]

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        ends: datetime | None = given.get("expires_at")
        return {
            "name": given.get("name") or "",
            "scopes": given.get("scopes") or [],
            "expires_at": None if ends is None else moment(ends.replace(tzinfo=UTC)),
            "allowed_models": given.get("allowed_models") or [],
            "allowed_networks": (given.get("allowed_networks") or "").split(),
        }

    def check(self, document: dict[str, Any]) -> None:
        self.document = NewKeyBody.read(document)

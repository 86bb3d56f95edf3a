"""API keys in the panel: the list, the form, the one answer that holds a secret, revocation and rotation."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display

from strongroom.access import services
from strongroom.access.models import ApiKey
from strongroom.access.scopes import ALL
from strongroom.console.forms.keys import KeyForm
from strongroom.console.members import TenantAdmin, actor_of, principal_of
from strongroom.console.templatetags.console import ago, badge


class ApiKeyAdmin(TenantAdmin):
    slug, list_title = "keys", "API keys"
    view_scope = change_scope = "keys:write"
    adds = {"create": "Create API key"}
    object_template = "console/key.html"
    verbs = ("revoke", "rotate")
    list_display = ("name", "prefix", "shown_state", "shown_scopes", "shown_expires", "shown_used", "shown_created")
    search_fields = ("name",)
    ordering = ("-id",)

    @display(description="state")
    def shown_state(self, key: ApiKey) -> str:
        return badge(state_of(key))

    @admin.display(description="scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        return "all" if ALL.issubset(key.scopes) else ", ".join(key.scopes)

    @admin.display(description="expires", ordering="expires_at")
    def shown_expires(self, key: ApiKey) -> str:
        return ago(key.expires_at) if key.expires_at else "never"

    @admin.display(description="last used", ordering="last_used_at")
    def shown_used(self, key: ApiKey) -> str:
        return ago(key.last_used_at) if key.last_used_at else "never"

    @admin.display(description="made", ordering="id")
    def shown_created(self, key: ApiKey) -> str:
        return ago(key.created_at)

    def object_context(self, request: HttpRequest, obj: ApiKey) -> dict[str, Any]:
        return {"document": services.document(obj), "state": state_of(obj)}

    def create(self, request: HttpRequest) -> HttpResponse:
        maker = principal_of(request)
        form = KeyForm(request.POST or None, maker)

        def make(document: dict[str, Any]) -> HttpResponse:
            return self._issued(request, services.create(maker, **document))

        return self.filled(form, make) or self.form_page(request, "console/key_new.html", "Create API key", form)

    def revoke(self, request: HttpRequest, key: ApiKey) -> None:
        services.revoke(actor_of(request), key.id)
        messages.success(request, f"{key.name} is revoked: within a second no process takes it.")

    def rotate(self, request: HttpRequest, key: ApiKey) -> HttpResponse:
        return self._issued(request, services.rotate(principal_of(request), key.id))

    def _issued(self, request: HttpRequest, made: services.NewKey) -> HttpResponse:
        """The secret is in this answer and in no other place: no redirect, no session, no message, no cache."""
        answer = self.page(request, "console/key_issued.html", "Copy the key now", object=made.key, secret=made.secret)
        answer["Cache-Control"] = "no-store"
        return answer


def state_of(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= timezone.now() else "active"

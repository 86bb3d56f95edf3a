"""The audit list of a tenant: who did what to which object. Read only."""

from __future__ import annotations

from django.contrib import admin

from strongroom import ids
from strongroom.audit.models import Entry
from strongroom.console.members import TenantAdmin
from strongroom.console.templatetags.console import ago
from strongroom.rest.bodies import MAKER_PREFIX


class AuditAdmin(TenantAdmin):
    slug, list_title = "audit", "Audit"
    view_scope = "audit:read"
    list_display = ("shown_at", "action", "shown_actor", "shown_object", "outcome", "from_address", "shown_detail")
    list_display_links = None
    list_filter = ("action", "actor_kind", "outcome")
    ordering = ("-id",)

    @admin.display(description="when", ordering="id")
    def shown_at(self, entry: Entry) -> str:
        return ago(entry.at)

    @admin.display(description="who")
    def shown_actor(self, entry: Entry) -> str:
        return ids.optional(MAKER_PREFIX.get(entry.actor_kind, "usr"), entry.actor_id) or entry.actor_kind

    @admin.display(description="what")
    def shown_object(self, entry: Entry) -> str:
        return f"{entry.object_kind.replace('_', ' ')} {entry.object_id or ''}"

    @admin.display(description="detail")
    def shown_detail(self, entry: Entry) -> str:
        return ", ".join(f"{key}: {value}" for key, value in entry.detail.items()) or "–"

"""The audit list of a tenant: who did what to which object. Read only."""

from __future__ import annotations

from strongroom.console.entries import EntryColumns
from strongroom.console.members import TenantAdmin


class AuditAdmin(EntryColumns, TenantAdmin):
    slug, list_title = "audit", "Audit"
    view_scope = "audit:read"
    list_display = ("shown_at", "action", "shown_actor", "shown_object", "outcome", "from_address", "shown_detail")
    list_display_links = None
    list_filter = ("action", "actor_kind", "outcome")
    ordering = ("-id",)

"""Columns of the audit log that both sites show."""

from __future__ import annotations

from django.contrib import admin

from strongroom import ids
from strongroom.audit.models import Entry
from strongroom.console.templatetags.console import ago
from strongroom.rest.bodies import MAKER_PREFIX

PREFIX = {"job": "job", "key": "key", "deployment": "dep", "model_version": "ver", "artefact": "art", "member": "mem"}


class EntryColumns:
    """Ids as the API says them, where it has one for that kind."""

    @admin.display(description="when", ordering="id")
    def shown_at(self, entry: Entry) -> str:
        return ago(entry.at)

    @admin.display(description="who")
    def shown_actor(self, entry: Entry) -> str:
        return ids.optional(MAKER_PREFIX.get(entry.actor_kind, "usr"), entry.actor_id) or entry.actor_kind

    @admin.display(description="what")
    def shown_object(self, entry: Entry) -> str:
        if entry.object_id is not None and (prefix := PREFIX.get(entry.object_kind)):
            return ids.text(prefix, entry.object_id)
        return f"{entry.object_kind.replace('_', ' ')} {entry.object_id or ''}"

    @admin.display(description="detail")
    def shown_detail(self, entry: Entry) -> str:
        return ", ".join(f"{key}: {_plain(value)}" for key, value in entry.detail.items()) or "–"


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

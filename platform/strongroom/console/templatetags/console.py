"""How values look in both sites' pages: states, sizes, moments, numbers, JSON. All of it escaped by format_html."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django import template
from django.contrib.humanize.templatetags.humanize import intcomma, naturaltime
from django.utils.html import format_html
from django.utils.safestring import SafeString

from strongroom import ids
from strongroom.console import cards
from strongroom.rest.bodies import moment

register = template.Library()

LOOKS = {
    "ready": "good", "succeeded": "good", "active": "good", "production": "good", "sealed": "good", "live": "good",
    "running": "busy", "loading": "busy", "checking": "busy", "queued": "calm", "draining": "warn",
    "failed": "bad", "rejected": "bad", "revoked": "bad", "suspended": "bad", "shredding": "bad", "expired": "warn",
}  # fmt: skip
MOVING = frozenset({"running", "loading", "checking", "draining"})
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@register.filter
def badge(state: str) -> SafeString:
    """A state as a coloured label."""
    looks, moving = LOOKS.get(state, "calm"), " sr-moving" if state in MOVING else ""
    return format_html('<span class="sr-badge sr-{}{}" data-state="{}">{}</span>', looks, moving, state, state)


@register.filter
def size(count: int | None) -> str:
    """1.2 MB"""
    if count is None:
        return "–"
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {UNITS[unit]}"


@register.filter
def number(value: Any) -> str:
    """62,006 · 0.974 · 1.2e-05"""
    if value is None or value == "":
        return "–"
    if isinstance(value, int):
        return str(intcomma(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


@register.filter
def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


@register.filter
def ago(at: datetime | None) -> SafeString | str:
    """ "3 minutes ago", with the moment itself at the pointer."""
    if at is None:
        return "–"
    return format_html('<time datetime="{0}" title="{0}">{1}</time>', moment(at), naturaltime(at).replace("\xa0", " "))


@register.filter
def lasted(start: datetime | None, end: datetime | None) -> str:
    """ "12 s", "3 min 5 s", "2 h 4 min\""""
    if start is None or end is None:
        return "–"
    seconds = int(max(timedelta(0), end - start).total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


@register.filter
def pretty(value: Any) -> str:
    """JSON to be read."""
    return json.dumps(value, indent=2, ensure_ascii=False)


@register.filter
def attribute(value: Any) -> str:
    """JSON for a data attribute (escaped where it is written)."""
    return json.dumps(value, separators=(",", ":"))


@register.filter
def checks(version: Any) -> list[str]:
    """What the import of a model version checked."""
    return cards.report(version.card)


@register.filter
def id_text(value: UUID | None, prefix: str) -> str:
    """job_01k9… of a UUID"""
    return "–" if value is None else ids.text(prefix, value)


@register.filter
def of(mapping: Any, key: Any) -> Any:
    """mapping[key] or None, for dictionaries whose keys are variables."""
    return mapping.get(key) if mapping else None


@register.simple_tag(takes_context=True)
def tenant_field(context: Any) -> SafeString:
    """In every form that changes something: the tenant that the page was drawn for (members.MemberSite.admin_view)."""
    request = context["request"]
    return format_html('<input type="hidden" name="_tenant" value="{}">', request.principal.tenant_id)


@register.filter
def field(form: Any, name: str) -> Any:
    """The bound field of this name."""
    return form[name]

"""How the native API writes what many resources share: moments and who made a row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from strongroom import ids

MAKER_PREFIX = {"key": "key", "member": "mem", "operator": "usr"}


def moment(value: datetime) -> str:
    """RFC 3339, UTC, milliseconds: `2026-11-24T22:40:00.123Z`."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional_moment(value: datetime | None) -> str | None:
    return None if value is None else moment(value)


def made_by(row: Any) -> dict[str, str | None]:
    """`{"kind": "key", "id": "key_…"}`; id null for the system."""
    return {
        "kind": row.created_by_kind,
        "id": ids.optional(MAKER_PREFIX.get(row.created_by_kind, "usr"), row.created_by_id),
    }

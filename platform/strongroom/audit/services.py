"""Recording: one entry, inside the caller's transaction. The tenant is the scope's, or named in the operator's."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from strongroom.audit.models import Entry
from strongroom.tenants.actor import Actor


def record(
    actor: Actor,
    action: str,
    object_kind: str,
    object_id: UUID | None,
    *,
    outcome: str = "done",
    tenant_id: UUID | None = None,
    **detail: Any,
) -> None:
    """`detail` holds names of settings, counts and states only: no content, no secret."""
    Entry.objects.create(
        **({} if tenant_id is None else {"tenant_id": tenant_id}),
        actor_kind=actor.kind,
        actor_id=actor.id,
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        from_address=actor.from_address,
        request_id=actor.request_id,
        outcome=outcome,
        detail=detail,
    )

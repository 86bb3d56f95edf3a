"""Who does something: the two columns created_by and the audit log's first columns, as one value that travels."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """kind: key, member, operator or system (id None)."""

    kind: str
    id: UUID | None = None
    from_address: str | None = None
    request_id: str | None = None

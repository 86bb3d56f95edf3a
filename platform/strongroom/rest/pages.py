"""Cursor pages: `{data, next_cursor, has_more}`, newest first by id (UUIDv7 is time order), or oldest first for logs.

The cursor is the last id of a page: rows that come or go in between shift nothing. Its text is no promise; what is
none of ours is 400 malformed_cursor.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from django.db import models

from strongroom.errors import Malformed
from strongroom.ids import base32, parse

Row = TypeVar("Row", bound=models.Model)
DEFAULT_LIMIT, MAX_LIMIT = 50, 200
_NUMBER = re.compile(r"n_([0-9]{1,19})")


def page(
    rows: models.QuerySet[Row],
    document: Callable[[Row], dict[str, Any]],
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    oldest_first: bool = False,
) -> dict[str, Any]:
    """One page of `rows`, each written by `document`. Malformed malformed_cursor."""
    if cursor is not None:
        rows = rows.filter(**{"pk__gt" if oldest_first else "pk__lt": _position(cursor, rows.model)})
    found = list(rows.order_by("pk" if oldest_first else "-pk")[: limit + 1])
    has_more = len(found) > limit
    data = [document(row) for row in found[:limit]]
    return {
        "data": data,
        "next_cursor": _cursor(found[limit - 1].pk) if has_more else None,
        "has_more": has_more,
    }


def _cursor(position: UUID | int) -> str:
    return f"n_{position}" if isinstance(position, int) else f"u_{base32(position.int, 26)}"


def _position(cursor: str, model: type[models.Model]) -> UUID | int:
    by_uuid = isinstance(model._meta.pk, models.UUIDField)
    if by_uuid and cursor.startswith("u_") and (found := parse("u", cursor)) is not None:
        return found
    if not by_uuid and (number := _NUMBER.fullmatch(cursor)) and int(number[1]) < 1 << 63:
        return int(number[1])
    raise Malformed(
        "the cursor is none of this list's",
        code="malformed_cursor",
        hint="take next_cursor of the page before, as it is",
    )

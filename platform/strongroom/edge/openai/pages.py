"""Lists of `/v1`: `?after=ID&limit=N&order=asc|desc`, as the SDK turns pages. Ids are UUIDv7s, so they sort by time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from django.db import models

from strongroom import ids
from strongroom.edge import http
from strongroom.errors import Invalid
from strongroom.openai import resources
from strongroom.openai.problems import shown

Row = TypeVar("Row", bound=models.Model)
FIELDS = ("after", "limit", "order")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a list is asked for."""

    after: UUID | None
    limit: int
    newest_first: bool


def wanted(
    request: http.Request, prefix: str, *, usual: int, most: int, others: tuple[str, ...] = ()
) -> tuple[Wanted, dict[str, str]]:
    """Read from the query, with its other fields. Invalid."""
    fields = request.query((*FIELDS, *others))
    given, limit, order = fields.get("after"), fields.get("limit", str(usual)), fields.get("order", "desc")
    after = None if given is None else ids.parse(prefix, given)
    if given is not None and after is None:
        raise Invalid.field(
            "?after", f"must be the last id of the page before, is {shown(given)}", code="invalid_value"
        )
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= most):
        raise Invalid.field("?limit", f"must be a number from 1 to {most}, is {shown(limit)}", code="invalid_value")
    if order not in ("asc", "desc"):
        raise Invalid.field("?order", f"must be 'asc' or 'desc', is {shown(order)}", code="invalid_value")
    return Wanted(after, int(limit), order == "desc"), fields


def page(rows: models.QuerySet[Row], asked: Wanted, write: Callable[[Row], resources.Json]) -> resources.Json:
    """Blocks, in the tenant's scope."""
    if asked.after is not None:
        rows = rows.filter(**{"pk__lt" if asked.newest_first else "pk__gt": asked.after})
    found = list(rows.order_by("-pk" if asked.newest_first else "pk")[: asked.limit + 1])
    return resources.page([write(row) for row in found[: asked.limit]], len(found) > asked.limit)

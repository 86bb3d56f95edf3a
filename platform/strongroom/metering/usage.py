"""Usage, read: what each principal used of each version, by the minute, hour or day, newest first, in pages.

Rows of the table are added up as they are read. Knows ids only; names are the API's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour

from strongroom.errors import Malformed
from strongroom.ids import base32, parse
from strongroom.metering.models import Usage

SPANS: Final = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
COUNTS: Final = ("calls", "items", "errors")
TIMES: Final = ("compute", "queue")
TOKENS: Final = ("tokens_in", "tokens_cached", "tokens_out", "tokens_cancelled")
MAX_CURSOR: Final = 128
_STARTS = {"minute": F("minute"), "hour": TruncHour("minute", tzinfo=UTC), "day": TruncDay("minute", tzinfo=UTC)}
_GROUP = ("deployment_id", "version_id", "principal_id")
_CURSOR = re.compile(r"w_([0-9]{1,10})_([0-9a-z]{26})([0-9a-z]{26})([0-9a-z]{26})")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which usage: None and an empty interval's end mean all."""

    by: str = "minute"
    deployments: Collection[UUID] | None = None
    principal: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


def page(
    asked: Asked, documents: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], *, limit: int, cursor: str | None
) -> dict[str, Any]:
    """One page; `documents` writes its rows, which have start, the three ids, counts and times. Malformed."""
    rows = _rows(asked)
    if cursor is not None:
        rows = rows.filter(_after(cursor, SPANS[asked.by]))
    totals = {f"sum_{name}": Sum(name) for name in (*COUNTS, *TOKENS, *(f"{time}_us" for time in TIMES))}
    grouped = rows.annotate(start=_STARTS[asked.by]).values("start", *_GROUP).annotate(**totals)
    found = list(grouped.order_by("-start", *_GROUP)[: limit + 1])
    has_more = len(found) > limit
    return {
        "data": documents([_row(row) for row in found[:limit]]),
        "next_cursor": _cursor(found[limit - 1]) if has_more else None,
        "has_more": has_more,
    }


def _rows(asked: Asked) -> QuerySet[Usage]:
    rows = Usage.objects.all()
    if asked.deployments is not None:
        rows = rows.filter(deployment_id__in=asked.deployments)
    if asked.principal is not None:
        rows = rows.filter(principal_id=asked.principal)
    if asked.since is not None:
        rows = rows.filter(minute__gte=asked.since)
    if asked.until is not None:
        rows = rows.filter(minute__lt=asked.until)
    return rows


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "start": found["start"],
        **{name: found[name] for name in _GROUP},
        **{name: found[f"sum_{name}"] for name in COUNTS},
        **{f"{time}_ms": found[f"sum_{time}_us"] / 1000 for time in TIMES},
        **{name: found[f"sum_{name}"] for name in TOKENS},
    }


def _cursor(row: dict[str, Any]) -> str:
    return f"w_{int(row['start'].timestamp()) // 60}_" + "".join([base32(row[name].int, 26) for name in _GROUP])


def _after(cursor: str, span: timedelta) -> Q:
    """What comes after the cursor's row, in terms of the table's own columns."""
    found = _CURSOR.fullmatch(cursor)
    known = [] if found is None else [parse("x", f"x_{text}") for text in found.groups()[1:]]
    if found is None or None in known:
        raise Malformed(
            "the cursor is none of this list's",
            code="malformed_cursor",
            hint="take next_cursor of the page before, as it is",
        )
    try:
        start = datetime.fromtimestamp(60 * int(found[1]), UTC)
        end = start + span
    except (OverflowError, ValueError):
        raise Malformed("the cursor is none of this list's", code="malformed_cursor") from None
    deployment, version, principal = known
    later = Q(deployment_id__gt=deployment) | Q(deployment_id=deployment) & (
        Q(version_id__gt=version) | Q(version_id=version, principal_id__gt=principal)
    )
    return Q(minute__lt=start) | Q(minute__gte=start, minute__lt=end) & later

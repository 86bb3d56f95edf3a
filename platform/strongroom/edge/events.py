"""GET /jobs/{id}/events: a job's events as they come (SSE), from `Last-Event-ID` on, until its end.

Rows are read in the caller's tenant, after watch.py's poller said that there are new ones. A stream also ends once its
caller may not see the job any more, and when the database stays away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from time import monotonic
from typing import Any
from uuid import UUID

import orjson

from strongroom import ids
from strongroom.access.services import Principal
from strongroom.edge import database, http, principals
from strongroom.edge.limits import Places
from strongroom.edge.watch import DONE, WATCHES, Mark, Row, Watched, is_done
from strongroom.errors import Malformed, NotFound, StrongroomError, Unavailable
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Event, Job
from strongroom.tenants import scope

COMMENT_SECONDS = 15.0
ASK_SECONDS = 1.0  # how old the last look at a stream's caller may be when a piece goes out
MAX_STREAMS = 1_000
EVENTS_AT_ONCE = 500
PATIENCE_SECONDS = 60.0  # a stream ends when the database stays away this long

STREAMS = Places("streams", of_all=MAX_STREAMS, of_one=MAX_STREAMS // 5)


async def events(request: http.Request, id: str) -> http.Answer:
    """The job's events as they come, from `Last-Event-ID` on; ends after the terminal state."""
    principal = await principals.of(request)
    principal.require("jobs:read")
    job_id = ids.parse("job", id)
    last = _last_event_id(request)
    if job_id is None or not await database.run(_exists, principal.tenant_id, job_id):
        raise NotFound(f"there is no job {id!r}")
    STREAMS.check(principal.tenant_id)
    headers = [(b"x-accel-buffering", b"no")]
    return http.Stream(_stream(request, principal, job_id, last), b"text/event-stream", headers)


def _last_event_id(request: http.Request) -> int:
    given = request.header(b"last-event-id").strip()
    if not given:
        return 0
    if not given.isdecimal() or len(given) > 18:
        raise Malformed("Last-Event-ID must be the id of an event, a whole number", code="malformed_header")
    return int(given)


def _exists(tenant_id: UUID, job_id: UUID) -> bool:
    with scope.tenant(tenant_id, write=False):
        return Job.objects.filter(id=job_id).exists()


async def _stream(request: http.Request, principal: Principal, job_id: UUID, last: int) -> AsyncGenerator[bytes]:
    """Ends with the job; and once the caller may not see it any more, with the next piece that comes."""
    with STREAMS.taken(principal.tenant_id), WATCHES.watching(Row("job", job_id)) as watched:
        asked = monotonic()
        async for piece in _events(watched, principal.tenant_id, last):
            if monotonic() - asked > ASK_SECONDS:
                asked = monotonic()
                if not await _may_see(request, principal):
                    return
            yield piece


async def _may_see(request: http.Request, principal: Principal) -> bool:
    """Whether the key or the session is still good for it; where nobody can say, it is."""
    try:
        now = await principals.again(request)
        now.require("jobs:read")
    except Unavailable:
        return True
    except StrongroomError:
        return False
    return now.tenant_id == principal.tenant_id


async def _events(watched: Watched, tenant_id: UUID, last: int) -> AsyncIterator[bytes]:
    seen: Mark | None = None
    spoken = heard = monotonic()
    yield b": stream\n\n"
    while not WATCHES.ending:
        mark = await watched.change(seen, 1.0)
        now = monotonic()
        if mark != seen and mark is not None:
            seen = mark
            async for id, text in _read(tenant_id, watched.row.id, last):
                last = id
                spoken = monotonic()
                yield text
        if mark is not None and is_done(watched.row, mark):
            return
        heard = now if mark is not None else heard
        if now - heard > PATIENCE_SECONDS:
            return
        if now - spoken >= COMMENT_SECONDS:
            spoken = now
            yield b": still here\n\n"


async def _read(tenant_id: UUID, job_id: UUID, last: int) -> AsyncIterator[tuple[int, bytes]]:
    while True:
        rows = await database.run(_after, tenant_id, job_id, last)
        for id, kind, data in rows:
            last = id
            yield id, b"id: %d\nevent: %s\ndata: %s\n\n" % (id, kind.encode(), orjson.dumps(data))
        if len(rows) < EVENTS_AT_ONCE:
            return


def _after(tenant_id: UUID, job_id: UUID, last: int) -> list[tuple[int, str, Any]]:
    """The next events in order; the terminal state carries the job's result or error, which its row seals."""
    with scope.tenant(tenant_id, write=False):
        rows = list(
            Event.objects.filter(job_id=job_id, id__gt=last)
            .order_by("id")
            .values_list("id", "kind", "data")[:EVENTS_AT_ONCE]
        )
        return [(id, kind, _whole(job_id, data) if kind == "state" else data) for id, kind, data in rows]


def _whole(job_id: UUID, data: dict[str, Any]) -> dict[str, Any]:
    if data.get("state") not in DONE["job"]:
        return data
    document = jobs.document(Job.objects.get(id=job_id), spec=False)
    return data | {name: document[name] for name in ("result", "error") if document[name] is not None}

"""Waiting for rows to change: `Prefer: wait` on any route and the event streams of jobs. One poller a process.

A watched row is named by (kind, id, number). The poller reads the states of all watched rows a few times a second, in
a few queries however many wait, and wakes who waits on what changed. It sees states and event numbers only;
what is shown to a caller is read again in the caller's tenant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db.models import Max

from strongroom import ids
from strongroom.access.middleware import COUNTED
from strongroom.access.services import Principal
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments.models import Deployment
from strongroom.edge import database, http, principals
from strongroom.edge.limits import Places
from strongroom.errors import Malformed, NotFound, StrongroomError, Unavailable
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Event, Job
from strongroom.jobs.states import TERMINAL
from strongroom.tenants import scope

POLL_SECONDS = 0.1
COMMENT_SECONDS = 15.0
ASK_SECONDS = 1.0  # how old the last look at a stream's caller may be when a piece goes out
CHUNK = 500  # ids a query
MAX_STREAMS = 1_000
MAX_HELD_BYTES = 4 << 20
EVENTS_AT_ONCE = 500
PATIENCE_SECONDS = 60.0  # a stream ends when the database stays away this long
APPLIED = (b"preference-applied", b"wait")

DONE: dict[str, frozenset[str]] = {
    "job": frozenset(str(state) for state in TERMINAL),
    "dataset": frozenset({"ready", "failed", "deleted"}),
    "deployment": frozenset({"ready", "failed", "stopped"}),
}
KINDS = {"job": "job", "pred": "job", "ds": "dataset", "dep": "deployment"}

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """What is watched: a job, a deployment, or a data set's version by its number."""

    kind: str
    id: UUID
    number: int = 0


class Mark(NamedTuple):
    """What the poller saw of a row last; a row that is gone has state "" ."""

    state: str
    event: int = 0


def is_done(row: Row, mark: Mark) -> bool:
    return not mark.state or mark.state in DONE[row.kind]


class Watched:
    """One row and who waits for its change."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.mark: Mark | None = None
        self.watchers = 0
        self._changed = asyncio.Event()

    @property
    def done(self) -> bool:
        return self.mark is not None and is_done(self.row, self.mark)

    def saw(self, mark: Mark) -> None:
        if mark != self.mark:
            self.mark = mark
            self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, seen: Mark | None, seconds: float) -> Mark | None:
        """The mark once it is another than `seen`, or the same after `seconds`."""
        if self.mark == seen:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)
        return self.mark


class Watches:
    """All watched rows of this process. Everything but `_read` runs on the event loop."""

    def __init__(self) -> None:
        self.ending = False  # the process stops: nobody waits any longer
        self._rows: dict[Row, Watched] = {}
        self._wanted: asyncio.Event | None = None

    @contextmanager
    def watching(self, row: Row) -> Iterator[Watched]:
        watched = self._rows.setdefault(row, Watched(row))
        watched.watchers += 1
        if self._wanted is not None:
            self._wanted.set()
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._rows[row]

    async def until_done(self, row: Row, seconds: float) -> bool:
        """Whether the row is done within `seconds`."""
        deadline = monotonic() + seconds
        with self.watching(row) as watched:
            while not watched.done and not self.ending and (left := deadline - monotonic()) > 0:
                await watched.change(watched.mark, left)
            return watched.done

    def end(self) -> None:
        """Who waits is answered with what is so far, and streams end: the callers come again."""
        self.ending = True
        for watched in self._rows.values():
            watched.wake()

    async def poll(self) -> None:
        """The poller: for the whole life of the process."""
        self._wanted = asyncio.Event()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._rows:
                await self._look()
                try:
                    await asyncio.wait_for(self._wanted.wait(), POLL_SECONDS)
                except TimeoutError:
                    continue
                self._wanted.clear()

    async def _look(self) -> None:
        rows = list(self._rows)
        try:
            marks = await database.run(read_marks, rows)
        except Exception as error:
            logger.warning("watched rows cannot be read: %s", type(error).__name__)
            await asyncio.sleep(1)
            return
        for row in rows:
            if (watched := self._rows.get(row)) is not None:
                watched.saw(marks.get(row, Mark("")))


WATCHES = Watches()


def read_marks(rows: list[Row]) -> dict[Row, Mark]:
    """State and last event of each row that exists."""
    marks: dict[Row, Mark] = {}
    with scope.operator("edge: states of watched rows", write=False):
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            marks |= _jobs([row for row in part if row.kind == "job"])
            marks |= _datasets([row for row in part if row.kind == "dataset"])
            marks |= _deployments([row for row in part if row.kind == "deployment"])
    return marks


def _jobs(rows: list[Row]) -> dict[Row, Mark]:
    if not rows:
        return {}
    wanted = [row.id for row in rows]
    last = dict(Event.objects.filter(job_id__in=wanted).values_list("job_id").annotate(Max("id")).order_by())
    states = Job.objects.filter(id__in=wanted).values_list("id", "state")
    return {Row("job", id): Mark(state, last.get(id, 0)) for id, state in states}


def _datasets(rows: list[Row]) -> dict[Row, Mark]:
    if not rows:
        return {}
    wanted = {(row.id, row.number) for row in rows}
    found = DatasetVersion.objects.filter(dataset_id__in={id for id, _ in wanted}, number__in={n for _, n in wanted})
    listed = found.values_list("dataset_id", "number", "state")
    return {Row("dataset", id, number): Mark(state) for id, number, state in listed if (id, number) in wanted}


def _deployments(rows: list[Row]) -> dict[Row, Mark]:
    if not rows:
        return {}
    states = Deployment.objects.filter(id__in=[row.id for row in rows]).values_list("id", "state")
    return {Row("deployment", id): Mark(state) for id, state in states}


# --- Prefer: wait ---


def row_of(document: Any) -> Row | None:
    """The row that a native document shows, where it is one that can be waited for."""
    if not isinstance(document, dict) or not isinstance(given := document.get("id"), str) or "state" not in document:
        return None
    prefix = given.partition("_")[0]
    kind, id = KINDS.get(prefix), ids.parse(prefix, given)
    if kind is None or id is None:
        return None
    return Row(kind, id, document["version"]) if kind == "dataset" else Row(kind, id)


class Held:
    """An answer of Django kept back until it is whole, or let through once it is none that can be waited for."""

    def __init__(self, send: http.Send) -> None:
        self._send = send
        self.start: http.Message | None = None
        self.body = bytearray()
        self.through = False

    async def send(self, message: http.Message) -> None:
        if self.through:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self.start = message
            if message["status"] not in {200, 201, 202} or not _is_json(message):
                await self.release()
        else:
            self.body += message.get("body", b"")
            if len(self.body) > MAX_HELD_BYTES:
                await self.release(more_body=message.get("more_body", False))

    async def release(self, *, more_body: bool = True) -> None:
        """Sends what was kept back; what follows passes."""
        if self.start is None or self.through:
            return
        self.through = True
        await self._send(self.start)
        if self.body or not more_body:
            await self._send({"type": "http.response.body", "body": bytes(self.body), "more_body": more_body})

    def document(self) -> Any:
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


def _is_json(start: http.Message) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(http.JSON) for n, v in start.get("headers", ()))


async def hold(route: Any, asked: http.Scope, receive: http.Receive, send: http.Send) -> None:
    """Lets `route` answer, waits for the row that its answer shows, then answers with that row as it is by then."""
    seconds = http.Request(asked, receive).wait_seconds or 0
    first = Held(send)
    await route(asked, receive, first.send)
    if first.through or first.start is None:
        return
    row = row_of(first.document())
    if row is None:
        await first.release(more_body=False)
        return
    done = await WATCHES.until_done(row, seconds)
    fresh = await _read_again(route, asked, first)
    began = first.start["status"] == 202 and asked["method"] != "DELETE"  # what is over is not made
    await _answer_held(first, fresh, 201 if began and done else first.start["status"], send)


async def _read_again(route: Any, asked: http.Scope, first: Held) -> bytes:
    """The resource through its own route, as the same caller; the first answer where that fails."""
    path = asked["path"] if asked["method"] in {"GET", "HEAD", "PATCH"} else _location(first)
    if path is None or first.start is None:
        return bytes(first.body)
    dropped = {b"content-length", b"content-type", b"transfer-encoding", b"idempotency-key", b"prefer", b"expect"}
    headers = [(name, value) for name, value in asked["headers"] if name not in dropped]
    inner = {**asked, "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    inner[COUNTED] = True
    again = Held(_nowhere)
    await route(inner, _empty_body(), again.send)
    return bytes(again.body if again.start is not None and again.start["status"] == 200 else first.body)


def _location(held: Held) -> str | None:
    headers = held.start.get("headers", ()) if held.start else ()
    return next((value.decode("latin-1") for name, value in headers if name.lower() == b"location"), None)


async def _nowhere(message: http.Message) -> None:
    """Where an inner answer goes that turned out to be no document."""


def _empty_body() -> http.Receive:
    given = False

    async def receive() -> http.Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()  # Django listens for the caller's going away until it has answered
        given = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def _answer_held(first: Held, body: bytes, status: int, send: http.Send) -> None:
    kept = [(n, v) for n, v in (first.start or {}).get("headers", ()) if n.lower() != b"content-length"]
    headers = [*kept, (b"content-length", b"%d" % len(body)), APPLIED]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# --- GET /jobs/{id}/events ---

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
    gone = asyncio.ensure_future(request.gone())
    try:
        with STREAMS.taken(principal.tenant_id), WATCHES.watching(Row("job", job_id)) as watched:
            asked = monotonic()
            async for piece in _events(watched, principal.tenant_id, last, gone):
                if monotonic() - asked > ASK_SECONDS:
                    asked = monotonic()
                    if not await _may_see(request, principal):
                        return
                yield piece
    finally:
        gone.cancel()


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


async def _events(watched: Watched, tenant_id: UUID, last: int, gone: asyncio.Future[None]) -> AsyncIterator[bytes]:
    seen: Mark | None = None
    spoken = heard = monotonic()
    yield b": stream\n\n"
    while not gone.done() and not WATCHES.ending:
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

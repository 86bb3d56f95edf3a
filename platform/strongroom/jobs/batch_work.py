"""One attempt at a batch, in the slot's thread: the file surveyed, its lines asked a few at a time, the answers sealed
as they come.

    survey the file → ask and write, keeping the lease → publish both files → add them and end the job, at once

Nothing of an attempt that is lost stays: the next one begins anew. What was answered before a cancel or the window's
end is kept. Knows no sockets and no documents of OpenAI's but the lines.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import datetime, timedelta
from functools import partial
from typing import Any, BinaryIO, cast

from django.db import DatabaseError, InterfaceError
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from strongroom import ids
from strongroom.access import services as access
from strongroom.access.generations import GENERATIONS
from strongroom.access.rates import RATES
from strongroom.access.services import Principal
from strongroom.deployments.served import Served
from strongroom.errors import Gone, LimitReached, StrongroomError, Unavailable
from strongroom.files import services as files
from strongroom.files.models import File
from strongroom.jobs import batches, endings
from strongroom.jobs.asking import EMBEDDINGS, Answer, Asker
from strongroom.jobs.batch_output import Output, line_of
from strongroom.jobs.cells import cells, served
from strongroom.jobs.endings import Failure
from strongroom.jobs.lease import Lease, Want
from strongroom.jobs.lines import Broken, Line, Survey, lines, survey
from strongroom.jobs.models import Attempt, Batch, Event, Job
from strongroom.jobs.moves import write
from strongroom.openai import errors
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault

AT_ONCE = 16  # lines that are asked at the same time
BROKEN_AT_ONCE = 500  # lines that are written without being asked, between two looks at the lease
BUFFER_BYTES = 1 << 20
WAIT_SECONDS = 0.1
TELL_SECONDS = 1.0
LOOK_SECONDS = 5.0  # whether who asks still may, and what is served
FLUSHES = 4  # at the end: what was heard of one is told by the next
FLUSH_SECONDS = 2.0  # leases of budgets are renewed and usage is counted in time
AWAY = (DatabaseError, InterfaceError, Unavailable)
EXPIRED = ("batch_expired", "the batch's 24 hours were over before this line was answered")
logger = logging.getLogger(__name__)


def work(job: Job, attempt: Attempt, lease: Lease) -> None:
    """Moved where the job is no longer ours."""
    with scope.tenant(job.tenant_id, write=False):
        artefact = job.input_artefact
        if artefact is None:
            raise Gone("the batch's file was deleted")
        spec, reader = job.spec, vault.reader(artefact)
    try:
        with reader:
            BatchAttempt(job, lease, spec, reader).run()
    finally:
        _flush_all()


def _flush_all() -> None:
    """Usage, and what was reserved from budgets and is not needed; a lease that is in use goes on."""
    try:
        for _ in range(FLUSHES):
            if not cells().flush():
                return
            time.sleep(0.01)  # what one flush was told, the loop takes in before the next
    except DatabaseError as error:
        logger.warning("usage waits in memory: the database answers %s", type(error).__name__)


class BatchAttempt:
    """Made and run by one thread."""

    def __init__(self, job: Job, lease: Lease, spec: dict[str, Any], reader: vault.StoredReader) -> None:
        self._job, self._lease, self._reader = job, lease, reader
        self._endpoint: str = spec["endpoint"]
        self._output_seconds: int | None = spec["output_seconds"]
        self._total = 0
        self._wanted: Want | None = None
        self._has_expired = False
        self._next: Line | Broken | None = None  # read, and not to be asked yet
        self._told = self._looked = self._flushed = time.monotonic()

    def run(self) -> None:
        found = survey(self._lines())
        if self._wanted is not None:
            self._stop()
        elif found.problems:
            self._fail(found.problems)
        else:
            self._answer(found)

    def _lines(self) -> Iterator[Line | Broken]:
        return lines(
            cast(BinaryIO, io.BufferedReader(self._reader.file(), BUFFER_BYTES)), self._endpoint, self._is_stopped
        )

    def _is_stopped(self) -> bool:
        self._wanted = self._lease.beat()
        return self._wanted is not None

    # --- what the lines name

    def _answer(self, found: Survey) -> None:
        try:
            principal, of = self._maker(str(found.model)), served(self._job.tenant_id, str(found.model))
            if self._endpoint != EMBEDDINGS:
                of.check_speaks()
        except StrongroomError as error:
            if error.status >= 500:
                raise
            said = errors.document(error)["error"]
            problem = {"code": said["code"], "line": found.first, "message": said["message"], "param": "body.model"}
            self._fail([problem])
            return
        self._total = found.total
        self._begin(of)
        asker = Asker(cells(), self._endpoint, principal, of)
        with scope.tenant(self._job.tenant_id, write=False):
            outputs = [Output(vault.new_artefact(self._job.tenant_id, "output")) for _ in range(2)]
        try:
            try:
                self._ask_all(asker, *outputs)
            finally:
                asker.end(self._lease.beat)
            if self._wanted == "drain":
                self._stop()
            else:
                self._settle(of, *outputs)
        finally:
            for output in outputs:
                output.discard()

    def _maker(self, model: str) -> Principal:
        """Who asked for the batch, as it may ask now. Unauthenticated, Denied."""
        with scope.tenant(self._job.tenant_id, write=False):
            principal = access.maker(self._job.created_by_kind, self._job.created_by_id)
        principal.require("predict")
        principal.require_model(model)
        return principal

    def _begin(self, of: Served) -> None:
        with scope.tenant(self._job.tenant_id):
            progress = self._progress(0)
            write(
                self._job,
                lease_until=self._lease.until,
                name=of.name,
                deployment_id=of.deployment_id,
                progress=progress,
            )
            Batch.objects.filter(job=self._job).update(
                total=self._total, completed=0, failed=0, began_at=Coalesce("began_at", Now()), finalizing_at=None
            )

    # --- asking

    def _ask_all(self, asker: Asker, good: Output, bad: Output) -> None:
        asked: dict[Future[Answer], Line] = {}
        waiting = self._lines()
        has_more = True
        while has_more or asked:
            if self._is_stopped():
                asker.end(self._lease.beat)
                for future, line in asked.items():
                    if not future.cancelled():
                        self._take(line, future, good, bad)
                return
            GENERATIONS.look()  # budgets that were changed
            if not self._has_expired and timezone.now() >= batches.ends_at(self._job):
                self._has_expired = True
                asker.end(self._lease.beat)
            written = bad.lines
            if has_more:
                has_more = self._fill(asked, waiting, asker, bad)
            if asked:
                for future in wait(asked, WAIT_SECONDS, FIRST_COMPLETED).done:
                    self._take(asked.pop(future), future, good, bad)
            elif has_more and bad.lines == written:
                time.sleep(WAIT_SECONDS)  # until the rate gives more: looking without a pause takes a core
            self._look_after(asker, good, bad)

    def _fill(
        self, asked: dict[Future[Answer], Line], waiting: Iterator[Line | Broken], asker: Asker, bad: Output
    ) -> bool:
        """Asks as many lines as may be asked now; False once there is no other."""
        of = asker.served
        most = AT_ONCE if of.concurrency is None else max(1, min(AT_ONCE, of.concurrency))
        for _ in range(BROKEN_AT_ONCE):
            one = self._next or next(waiting, None)
            self._next = None
            if one is None:
                return False
            if isinstance(one, Broken):
                bad.add(line_of(one.custom_id, error=(one.code, one.problem()["message"])))
            elif self._has_expired:
                bad.add(line_of(one.custom_id, error=EXPIRED))
            elif len(asked) < most and self._may_ask(asker.principal, of):
                asked[asker.ask(one.body)] = one
            else:
                self._next = one
                return True
        return True

    def _may_ask(self, principal: Principal, of: Served) -> bool:
        try:
            if of.requests_per_second is not None:
                RATES.take(of.deployment_id, of.requests_per_second, "the deployment's")
        except LimitReached:
            return False
        try:
            principal.take_request()
        except LimitReached:
            RATES.give_back(of.deployment_id)
            return False
        return True

    def _take(self, line: Line, future: Future[Answer], good: Output, bad: Output) -> None:
        if future.cancelled():
            bad.add(line_of(line.custom_id, error=EXPIRED))
            return
        answer = future.result()
        (good if answer.status == 200 else bad).add(line_of(line.custom_id, answer))

    # --- meanwhile

    def _look_after(self, asker: Asker, good: Output, bad: Output) -> None:
        """What is due. A database that is away stops nothing until the lease is over."""
        now = time.monotonic()
        try:
            if now - self._told >= TELL_SECONDS:
                self._told = now
                self._tell(good, bad)
            if now - self._flushed >= FLUSH_SECONDS:
                self._flushed = now
                cells().flush()
            if now - self._looked >= LOOK_SECONDS:
                self._looked = now
                self._look(asker, good.size_bytes + bad.size_bytes)
        except AWAY as error:
            self._lease.endure(error)

    def _look(self, asker: Asker, size_bytes: int) -> None:
        """What is asked from now on is refused where the front door would refuse it."""
        try:
            asker.principal = self._maker(asker.served.name)
            asker.served = served(self._job.tenant_id, asker.served.name)
            with scope.tenant(self._job.tenant_id, write=False):
                vault.check_room(self._job.tenant_id, size_bytes)
            asker.refused = None
        except Unavailable:
            raise
        except StrongroomError as error:
            asker.refused = error

    def _tell(self, good: Output, bad: Output) -> None:
        done = good.lines + bad.lines
        progress = self._progress(done)
        if progress == self._job.progress:
            return
        began = time.monotonic()
        with scope.tenant(self._job.tenant_id):
            write(self._job, lease_until=self._lease.until, progress=progress)
            Event.objects.create(job=self._job, kind="progress", data=progress)
            Batch.objects.filter(job=self._job).update(completed=good.lines, failed=bad.lines)
        self._lease.renewed(began)

    def _progress(self, done: int) -> dict[str, Any]:
        return {"fraction": done / max(1, self._total), "items": done, "items_total": self._total}

    # --- the end

    def _settle(self, of: Served, good: Output, bad: Output) -> None:
        """Both files and the job's end, all or nothing."""
        with scope.tenant(self._job.tenant_id):
            write(self._job, lease_until=self._lease.until, progress=self._progress(good.lines + bad.lines))
            Batch.objects.filter(job=self._job).update(
                completed=good.lines, failed=bad.lines, finalizing_at=None if self._wanted else Now()
            )
        name, expires_at = ids.text("batch", self._job.id), self._expiry()
        output = self._lease.beside(partial(good.publish, f"{name}_output.jsonl", expires_at))
        error = self._lease.beside(partial(bad.publish, f"{name}_error.jsonl", expires_at))
        with scope.tenant(self._job.tenant_id):
            Batch.objects.filter(job=self._job).update(
                output_file=self._added(output, of), error_file=self._added(error, of), has_expired=self._has_expired
            )
            if self._wanted == "cancel":
                endings.cancel(self._job)
            else:
                counts = {"total": self._total, "completed": good.lines, "failed": bad.lines}
                named = {"deployment": of.name, "model": of.model, "version": of.version}
                endings.succeed(self._job, named | counts, said=named | counts)

    def _added(self, sealed: files.Sealed | None, of: Served) -> File | None:
        if sealed is None:
            return None
        actor = Actor(self._job.created_by_kind, self._job.created_by_id)
        return files.add(actor, files.Purpose.BATCH_OUTPUT, sealed, deployment=of.name)

    def _expiry(self) -> datetime | None:
        seconds = self._output_seconds
        return None if seconds is None else timezone.now() + timedelta(seconds=seconds)

    def _fail(self, problems: list[dict[str, Any]]) -> None:
        message = str(problems[0]["message"])
        with scope.tenant(self._job.tenant_id):
            row = Batch.objects.get(job=self._job)
            row.problems = problems
            row.save(update_fields=["problems"])
            endings.fail(self._job, Failure("batch_invalid", message, "mend the file and upload it again"))

    def _stop(self) -> None:
        with scope.tenant(self._job.tenant_id):
            if self._wanted == "cancel":
                endings.cancel(self._job)
            else:
                endings.hand_back(self._job, outcome="drained")

"""One attempt at one job whose work is a process: start it, feed it, read it, keep the lease, relay, settle.

All in the slot's own thread, straight down: prepare → watch → end the process → settle. Every write carries the
claim's fence, so that an attempt whose lease was taken writes nothing more and kills its process. What a success
becomes is in outcomes.py, what an end means in endings.py.
"""

from __future__ import annotations

import base64
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections, transaction

import sandbox
from strongroom.errors import Gone, StrongroomError, Unavailable
from strongroom.jobs import endings, failures, outcomes
from strongroom.jobs.endings import Failure
from strongroom.jobs.lease import Lease, Want
from strongroom.jobs.models import Attempt, Job, LogLine
from strongroom.jobs.moves import Moved
from strongroom.jobs.packets import Batch, Done, Failed, Line, Packet, Progress, Ready, Sealed, Unreadable
from strongroom.jobs.process import Ended, Process, close
from strongroom.jobs.record import Recorder
from strongroom.rest.problem import log_failure
from strongroom.tenants import scope
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

POLL_SECONDS = 0.1
CANCEL_SECONDS = 0.5  # after the relay, then the process is killed
DRAIN_SECONDS = 8.0  # to seal a checkpoint
GRACE_SECONDS = 5.0  # beyond max_seconds
SLOTS = 2
AWAY = (DatabaseError, InterfaceError, Unavailable)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process ended, or said what nobody understands, without `done` or `failed`."""

    why: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Ended because somebody asked (cancel, drain) or its time was up."""

    why: Literal["cancel", "drain", "timeout"]


Ending = Done | Failed | Crashed | Stopped


@dataclass(slots=True)
class Prepared:
    """What the process is started with: the packet and its descriptors, which are closed once they are sent."""

    packet: dict[str, Any]
    descriptors: list[int]
    slots: deque[vault.Slot]
    generation: int


@dataclass(slots=True)
class Supervision:
    """One attempt. Made and run by one thread."""

    job: Job
    attempt: Attempt
    lease: Lease
    answer: Callable[[Batch], tuple[list[dict[str, Any]], bytes] | None] | None = None
    settle: Callable[[Job, Done, outcomes.Output], None] = outcomes.settle
    outputs: dict[str, tuple[vault.Slot, Sealed]] = field(default_factory=dict)
    slots: deque[vault.Slot] = field(default_factory=deque)
    generation: int = 0
    process: Process | None = None

    def run(self) -> None:
        """Until the row says how it ended. Moved where the job is no longer ours."""
        try:
            prepared = prepare(self.job)
            self.slots, self.generation = prepared.slots, prepared.generation
            recorder = Recorder(self.job, self.lease)
            ending = self._watch(prepared, recorder)
            self._process.end(patience_seconds=2 if isinstance(ending, Done | Failed) else 0)
            if isinstance(ending, Done):
                self._wait_for_keys()
            self._settle(ending, recorder)
        finally:
            if self.process is not None:
                self.process.end()
            for slot in [*self.slots, *(slot for slot, _ in self.outputs.values())]:
                slot.discard()

    @property
    def _process(self) -> Process:
        return cast(Process, self.process)

    def _watch(self, prepared: Prepared, recorder: Recorder) -> Ending:
        resources = self.job.spec["resources"]
        # The process watches its time over all attempts; this is for one that does not.
        deadline = time.monotonic() + resources["max_seconds"] + GRACE_SECONDS
        mode = cast(sandbox.Mode, settings.ENVIRONMENT.sandbox)
        self.process = Process(memory_bytes=resources["memory_bytes"], mode=mode)
        try:
            self._process.send(prepared.packet, prepared.descriptors)
        finally:
            for descriptor in prepared.descriptors:
                os.close(descriptor)
        asked: Want | None = None
        kill_at = deadline
        while True:
            try:
                packet = self._process.receive(POLL_SECONDS)
                if isinstance(packet, Done | Failed):
                    return _ending(packet, asked)
                if packet is not None:
                    self._take(packet, recorder)
            except (Ended, Unreadable, vault.SlotRefused) as error:
                return Stopped(asked) if asked else Crashed(f"{type(error).__name__} {error}".strip())
            with self._enduring():
                recorder.flush(self._process.usage())
            want = self.lease.beat(usage=recorder.usage(self._process.usage()))
            if want is not None and want != asked and asked != "cancel":
                asked = want
                self._process.send({"type": "control", "want": want}, wait_seconds=0.1)
                kill_at = min(deadline, time.monotonic() + (CANCEL_SECONDS if want == "cancel" else DRAIN_SECONDS))
            if time.monotonic() >= kill_at:
                return Stopped(asked or "timeout")

    @contextmanager
    def _enduring(self) -> Iterator[None]:
        """A database or keys that are away stop no work: the lease says for how long."""
        try:
            yield
        except AWAY as error:
            self.lease.endure(error)

    def _wait_for_keys(self) -> None:
        """The result is taken over in one go, for which the tenant's keys must open; until then it waits with us."""
        artefacts = [artefact for _, artefact in _inputs(self.job)]
        while self.lease.beat() is None:
            try:
                with scope.tenant(self.job.tenant_id, write=False):
                    vault.sealed(LogLine, "text", "", tenant_id=self.job.tenant_id, row_id=self.job.id)
                    for artefact in artefacts:
                        vault.data_key(artefact)
                return
            except AWAY as error:
                self.lease.endure(error)
                time.sleep(POLL_SECONDS)

    def _take(self, packet: Packet, recorder: Recorder) -> None:
        match packet:
            case Ready():
                recorder.ready(packet)
            case Progress():
                recorder.progress(packet)
            case Line():
                recorder.line(packet.level, packet.text)
            case Sealed():
                self._take_sealed(packet, recorder)
            case Batch():
                self._answer(packet)

    def _answer(self, batch: Batch) -> None:
        """What a cell says to a batch of a data set; nothing where the job is to end, which the caller sees too."""
        try:
            if self.answer is None:
                raise Unreadable("batch")
            answered = self.answer(batch)
        finally:
            close(batch.descriptors)
        if answered is not None:
            described, body = answered
            self._process.send_tensors(
                {"type": "outputs", "number": batch.content.get("number"), "outputs": described}, body
            )

    def _take_sealed(self, packet: Sealed, recorder: Recorder) -> None:
        """A checkpoint counts at once; the other outputs with the job's end, in its transaction."""
        if not self.slots or packet.kind in self.outputs:
            raise Unreadable("sealed")
        slot = self.slots.popleft()
        if packet.kind == "checkpoint":
            with self._enduring(), _discarding(slot):
                self._keep_checkpoint(slot, packet, recorder)
        else:
            self.outputs[packet.kind] = (slot, packet)
        with scope.tenant(self.job.tenant_id, write=False):
            fresh = vault.open_slot(self.job.tenant_id)
        self.slots.append(fresh)
        self._process.send({"type": "slot"}, [fresh.descriptor])

    def _keep_checkpoint(self, slot: vault.Slot, packet: Sealed, recorder: Recorder) -> None:
        """With what was said until then: the next attempt tells only what comes after."""
        began = time.monotonic()
        with scope.tenant(self.job.tenant_id):
            recorder.write(self._process.usage())
            artefact = adopt(slot, packet, self.generation)
            oldest, previous = self.attempt.previous_artefact, self.attempt.checkpoint_artefact
            self.attempt.checkpoint_artefact, self.attempt.previous_artefact = artefact, previous
            self.attempt.checkpoint_step = packet.step
            self.attempt.save(update_fields=["checkpoint_artefact", "previous_artefact", "checkpoint_step"])
            if oldest is not None:
                vault.destroy(oldest)
        self.lease.renewed(began)
        recorder.written()

    def _settle(self, ending: Ending, recorder: Recorder) -> None:
        """The one transaction that ends the attempt: events, log, outputs and the row, all or nothing."""
        with scope.tenant(self.job.tenant_id):
            recorder.write(self._process.usage(), final=True)
            match ending:
                case Done():
                    self._succeed(ending)
                case Stopped("cancel"):
                    endings.cancel(self.job)
                case Stopped("drain"):
                    endings.hand_back(self.job, outcome="drained")
                case Stopped("timeout"):
                    endings.fail(self.job, failures.timed_out(self.job))
                case Failed():
                    endings.fail(self.job, failures.of_process(self.job, ending))
                case Crashed():
                    self._crashed(ending)

    def _succeed(self, done: Done) -> None:
        try:
            with transaction.atomic(using=scope.alias()):
                self.settle(self.job, done, self._output)
        except outcomes.Refused as refused:
            endings.fail(self.job, refused.failure)

    def _output(self, kind: str) -> Artefact:
        if kind not in self.outputs:
            raise outcomes.Refused(failures.INTERNAL)
        slot, packet = self.outputs.pop(kind)
        return adopt(slot, packet, self.generation)

    def _crashed(self, ending: Crashed) -> None:
        code, (_, peak_bytes) = self._process.exit_code, self._process.usage()
        logger.warning("job %s, attempt %s: crashed, exit %s, %s", self.job.id, self.job.attempt, code, ending.why)
        if failures.looks_out_of_memory(self.job, code, peak_bytes):
            endings.fail(self.job, failures.out_of_memory(self.job))
        else:
            endings.lost(self.job)


def _ending(packet: Done | Failed, asked: Want | None) -> Ending:
    """A process that gives up as if it had been asked would be begun again for ever: nobody asked, it crashed."""
    if isinstance(packet, Failed) and packet.code in ("cancelled", "drained"):
        return Stopped(asked) if asked else Crashed(f"{packet.code}, which nobody asked for")
    return packet


@contextmanager
def _discarding(slot: vault.Slot) -> Iterator[None]:
    try:
        yield
    finally:
        slot.discard()  # nothing where it was adopted


def adopt(slot: vault.Slot, packet: Sealed, generation: int) -> Artefact:
    return vault.adopt(
        slot,
        kind=packet.kind,
        artefact_id=packet.artefact,
        header_tag=packet.header_tag,
        wrapped_data_key=packet.wrapped_data_key,
        generation=generation,
        size_bytes=packet.size_bytes,
        expires_at=endings.prediction_expiry() if packet.kind == "output" else None,
    )


def prepare(job: Job) -> Prepared:
    """Keys, descriptors and slots. ArtefactCorrupt, Gone, Unavailable: then nothing stays open."""
    opened: list[int] = []
    slots: deque[vault.Slot] = deque()
    try:
        with scope.tenant(job.tenant_id, write=False):
            public_key, generation = vault.public_key(job.tenant_id)
            inputs = [_given(artefact, opened) | {"name": name} for name, artefact in _inputs(job)]
            resume = _resume(job, opened)
            slots.extend(vault.open_slot(job.tenant_id) for _ in range(SLOTS))
            resources = job.spec["resources"]
            packet = {
                "type": "start",
                "job": str(job.id),
                "attempt": job.attempt,
                "fence": job.fence,
                "tenant": str(job.tenant_id),
                "spec": job.spec,
                "about": _about(job),
                "inputs": inputs,
                "public_key": _base64(public_key),
                "generation": generation,
                "resume": resume,
                "threads": resources["threads"],
                "memory_bytes": resources["memory_bytes"],
            }
        # The slots stay ours until they are adopted: the process gets copies.
        descriptors = [*opened, *(os.dup(slot.descriptor) for slot in slots)]
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        for slot in slots:
            slot.discard()
        raise
    return Prepared(packet, descriptors, slots, generation)


def _inputs(job: Job) -> list[tuple[str, Artefact]]:
    if job.kind == "import":
        artefacts = [("model", job.input_artefact)]
    else:
        artefacts = [("dataset", None if job.dataset_version is None else job.dataset_version.artefact)]
    found = [(name, artefact) for name, artefact in artefacts if artefact is not None]
    if len(found) < len(artefacts):
        raise Gone("what the job reads was deleted")
    return found


def _given(artefact: Artefact, opened: list[int]) -> dict[str, Any]:
    key = vault.data_key(artefact)
    opened.append(vault.sealed_descriptor(artefact))
    return {
        "artefact": str(artefact.id),
        "kind": artefact.kind,
        "header_tag": _base64(bytes(artefact.header_tag)),
        "data_key": _base64(key),
        "stored_bytes": artefact.stored_bytes,
    }


def _resume(job: Job, opened: list[int]) -> dict[str, Any] | None:
    """The newest checkpoint that opens; a corrupt one is left out, the one before it stands in."""
    rows = job.attempts.order_by("-number").select_related("checkpoint_artefact", "previous_artefact")
    for attempt in rows:
        for artefact in (attempt.checkpoint_artefact, attempt.previous_artefact):
            if artefact is None or artefact.state != Artefact.State.SEALED:
                continue
            try:
                return _given(artefact, opened)
            except vault.ArtefactCorrupt:
                logger.error("checkpoint %s of job %s is corrupt; going on from an older one", artefact.id, job.id)
    return None


def _about(job: Job) -> dict[str, Any]:
    version = job.dataset_version
    if version is None:
        return {}
    return {
        "format": version.format,
        "modality": version.modality,
        "target": version.target,
        "fingerprint": version.fingerprint,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def supervise(job: Job, attempt: Attempt, stop: threading.Event, lease_seconds: int) -> None:
    """One claimed job, to the end of this attempt. Never raises: what nobody foresaw fails the job."""
    lease = Lease(job, stop, lease_seconds)
    try:
        _work(job, attempt, lease)
    except Moved:
        logger.warning("job %s, attempt %s: the lease is gone, the work is dropped", job.id, job.attempt)
    except Exception as error:
        _unforeseen(job, error)


def _work(job: Job, attempt: Attempt, lease: Lease) -> None:
    from strongroom.jobs import predictions  # it needs Supervision

    if job.kind == "predict":
        predictions.work(job, attempt, lease)
    else:
        Supervision(job, attempt, lease).run()


def _unforeseen(job: Job, error: Exception) -> None:
    """Before or around the process: keys that are away hand the job back, a corrupt input fails it."""
    if isinstance(error, DatabaseError | InterfaceError):
        log_failure(error)
        connections.close_all()  # of this thread: the next try connects afresh
    try:
        with scope.tenant(job.tenant_id):
            job.refresh_from_db(fields=["state", "cancel_requested_at"])
            if isinstance(error, Unavailable) and error.code != "storage_full":
                endings.hand_back(job, outcome="drained", wait_seconds=2)
                return
            if isinstance(error, DatabaseError | InterfaceError):
                endings.lost(job)
                return
            if not isinstance(error, StrongroomError | vault.ArtefactCorrupt):
                logger.error("job %s, attempt %s: unforeseen", job.id, job.attempt)
                log_failure(error)
            endings.fail(job, _failure(error))
    except Moved:
        pass
    except Exception as failure:
        # The database is away: the lease runs out and the sweep hands the job on.
        logger.error("job %s, attempt %s: its end could not be written", job.id, job.attempt)
        log_failure(failure)


def _failure(error: Exception) -> Failure:
    if isinstance(error, vault.ArtefactCorrupt):
        return failures.ARTEFACT_CORRUPT
    return outcomes.failure_of(error) if isinstance(error, StrongroomError) else failures.INTERNAL

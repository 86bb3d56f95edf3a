"""One attempt at one job whose work is a process: start it, feed it, read it, keep the lease, relay, settle.

All in the slot's own thread, straight down: prepare → watch → end the process → settle. Every write carries the
claim's fence, so that an attempt whose lease was taken writes nothing more and kills its process. What a success
becomes is in outcomes.py, what an end means in endings.py.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from django.conf import settings
from django.db import DatabaseError, InterfaceError, transaction

import sandbox
from strongroom.errors import Unavailable
from strongroom.jobs import endings, failures, outcomes
from strongroom.jobs.lease import Lease, Want
from strongroom.jobs.models import Attempt, Job, LogLine
from strongroom.jobs.packets import Batch, Done, Failed, Line, Packet, Progress, Ready, Sealed, Unreadable
from strongroom.jobs.prepare import Prepared, inputs_of, prepare
from strongroom.jobs.process import Ended, Process, close, granted_bytes
from strongroom.jobs.record import Recorder
from strongroom.tenants import scope
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

POLL_SECONDS = 0.1
CANCEL_SECONDS = 0.5  # after the relay, then the process is killed
DRAIN_SECONDS = 8.0  # to seal a checkpoint
GRACE_SECONDS = 5.0  # beyond max_seconds
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
        try:
            self.process = Process(memory_bytes=granted_bytes(resources["memory_bytes"]), mode=mode)
            self.process.send(prepared.packet, prepared.descriptors)
        finally:
            close(prepared.descriptors)
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
        artefacts = [artefact for _, artefact in inputs_of(self.job)]
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
                self.lease.beside(slot.sync)
                self._keep_checkpoint(slot, packet, recorder)
        else:
            with self._enduring():
                self.lease.beside(slot.sync)
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
            Attempt.objects.filter(id=self.attempt.id).update(
                checkpoint_artefact=artefact, previous_artefact=previous, checkpoint_step=packet.step
            )
            if oldest is not None:
                vault.destroy(oldest)
        # Only what is committed is known: the next one names these rows.
        self.attempt.checkpoint_artefact, self.attempt.previous_artefact = artefact, previous
        self.attempt.checkpoint_step = packet.step
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

"""What a job's process is started with: the packet `start`, the descriptors that ride along, the slots to seal into.

Keys leave the vault here and nowhere else, over the socket of one process. Knows how nothing is run.
"""

from __future__ import annotations

import base64
import logging
import os
from collections import deque
from dataclasses import dataclass
from typing import Any

from strongroom.errors import Gone
from strongroom.jobs.models import Job
from strongroom.jobs.process import granted_bytes
from strongroom.registry import services as registry
from strongroom.tenants import scope
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

SLOTS = 2
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Prepared:
    """What the process is started with: the packet and its descriptors, which are closed once they are sent."""

    packet: dict[str, Any]
    descriptors: list[int]
    slots: deque[vault.Slot]
    generation: int


def prepare(job: Job) -> Prepared:
    """Keys, descriptors and slots. ArtefactCorrupt, Gone, Unavailable: then nothing stays open."""
    opened: list[int] = []
    slots: deque[vault.Slot] = deque()
    try:
        with scope.tenant(job.tenant_id, write=False):
            public_key, generation = vault.public_key(job.tenant_id)
            inputs = [_given(artefact, opened) | {"name": name} for name, artefact in inputs_of(job)]
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
                "memory_bytes": granted_bytes(resources["memory_bytes"]),
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


def inputs_of(job: Job) -> list[tuple[str, Artefact]]:
    if job.kind == "import":
        artefacts = [("model", job.input_artefact)]
    else:
        artefacts = [("dataset", None if job.dataset_version is None else job.dataset_version.artefact)]
    if job.kind == "finetune":
        artefacts.append(("base", None if job.base_version is None else job.base_version.artefact))
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
        return {} if job.input_artefact is None else {"format": registry.pending_import(job.input_artefact.id).format}
    return {
        "format": version.format,
        "modality": version.modality,
        "target": version.target,
        "fingerprint": version.fingerprint,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

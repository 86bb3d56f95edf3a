"""The agent's side of the database: what is wanted, what it takes to load it, what became of it.

Every function is one visit, called in the agent's database thread. Knows rows and the vault; nothing of processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.db import connections
from django.utils import timezone

from strongroom.access.models import Generation
from strongroom.deployments import services
from strongroom.deployments.models import Deployment, Replica, Traffic
from strongroom.errors import NotFound
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.tenants.models import TenantState
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

State = Deployment.State
SILENT_SECONDS = 60  # a replica that has not beaten so long is no longer there
HANDED_BACK = ("output", "input")  # kinds of artefacts whose plaintext a web process may send to their tenant


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version that a deployment should have loaded."""

    tenant: UUID
    deployment: UUID
    name: str
    device: str
    version: UUID
    max_batch: int
    context_tokens: int | None = None
    share: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """The deployments at one generation."""

    generation: int
    wanted: tuple[Wanted, ...]
    loading: frozenset[UUID]  # deployments
    draining: tuple[tuple[UUID, UUID, str], ...]  # tenant, deployment, name


@dataclass(slots=True)
class Order:
    """What a cell needs to load one version, and its base where it is an adapter. `forget` wipes keys, closes files."""

    artefact: UUID
    header_tag: bytes
    stored_bytes: int
    interface: bytes  # JSON
    data_key: bytearray
    descriptor: int
    tenant: UUID
    version: UUID
    size_bytes: int
    is_public: bool = False
    base: Order | None = None
    plain: bool = False  # the descriptor is of the plaintext, sealed in memory (shared.py)

    def forget(self) -> None:
        self.data_key[:] = bytes(len(self.data_key))
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        if self.base is not None:
            self.base.forget()


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a deployment on this node: ready, failed (with its code), loading, stopped."""

    tenant: UUID
    deployment: UUID
    state: str
    error_code: str | None = None
    memory_bytes: int | None = None


@dataclass(slots=True)
class Reports:
    """The newest report of each deployment, kept until the database has taken it."""

    waiting: dict[UUID, Report] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        self.waiting[report.deployment] = report

    def done(self, reports: Iterable[Report]) -> None:
        for report in reports:
            if self.waiting.get(report.deployment) is report:
                del self.waiting[report.deployment]


def generation() -> int:
    with scope.operator("agent: generation", write=False):
        return Generation.objects.filter(name="deployments").values_list("value", flat=True).first() or 0


def read() -> Reading:
    """The number first: what changes in between is read again."""
    number = generation()
    with scope.operator("agent: deployments", write=False):
        places = list(
            Deployment.objects.exclude(state=State.STOPPED)
            .filter(tenant__state=TenantState.ACTIVE)
            .order_by("created_at")
            .values_list("tenant_id", "id", "name", "device", "state", "max_batch", "context_tokens", "share")
        )
        # No column of a version but its id: sealed ones would ask the key service here.
        traffic = list(
            Traffic.objects.exclude(deployment__state=State.STOPPED)
            .filter(version__state=ModelVersion.State.READY)
            .values_list("deployment_id", "version_id")
        )
    versions: dict[UUID, list[UUID]] = {}
    for deployment, version in traffic:
        versions.setdefault(deployment, []).append(version)
    wanted = [
        Wanted(tenant, row, name, device, version, max_batch, context_tokens, share)
        for tenant, row, name, device, state, max_batch, context_tokens, share in places
        if state != State.DRAINING
        for version in versions.get(row, ())
    ]
    draining = [(tenant, row, name) for tenant, row, name, _, state, *_ in places if state == State.DRAINING]
    loading = frozenset(row for _, row, _, _, state, *_ in places if state == State.LOADING)
    return Reading(number, tuple(wanted), loading, tuple(draining))


def order(wanted: Wanted) -> Order:
    """Key, file and interface of a version. NotFound, Gone, Unavailable; vault's ArtefactCorrupt and ColumnCorrupt."""
    found, base_id = _order(wanted.tenant, wanted.version)
    try:
        if base_id is not None:
            found.base, _ = _order(wanted.tenant, base_id)
    except BaseException:
        found.forget()
        raise
    return found


def _order(tenant: UUID, version_id: UUID) -> tuple[Order, UUID | None]:
    """The order of one version, and its base where it is an adapter; of a public one as its owner has it."""
    with scope.tenant(tenant, write=False):
        rows = ModelVersion.objects.select_related("artefact__tenant_key", "public")
        version = rows.defer("evaluation", "reasons", "card").filter(id=version_id).first()
        if version is not None and version.artefact is not None:
            return _opened(version, version.artefact), version.base_id
    if version is None or version.public is None or version.public.withdrawn_at is not None:
        raise NotFound("the version or its artefact is gone")
    found, base_id = _order(version.public.owner_id, version.public.version_id)
    found.version, found.is_public = version_id, True
    return found, base_id


def _opened(version: ModelVersion, artefact: Artefact) -> Order:
    key = bytearray(vault.data_key(artefact))
    return Order(
        artefact=artefact.id,
        header_tag=bytes(artefact.header_tag),
        stored_bytes=artefact.stored_bytes,
        interface=json.dumps(version.signature).encode(),
        data_key=key,
        descriptor=vault.sealed_descriptor(artefact),
        tenant=version.tenant_id,
        version=version.id,
        size_bytes=artefact.size_bytes,
    )


def save(reports: Iterable[Report], node: str) -> None:
    """Replica rows and the deployments' states; the generation rises where a state changed."""
    for report in reports:
        with scope.tenant(report.tenant):
            row = Deployment.objects.select_for_update().filter(id=report.deployment).first()
            if row is not None:
                _save(row, report, node)


def _save(row: Deployment, report: Report, node: str) -> None:
    mine = Replica.objects.filter(deployment=row, node=node)
    if report.state == State.STOPPED:
        mine.delete()
        alive = timezone.now() - timedelta(seconds=SILENT_SECONDS)
        if row.state == State.DRAINING and not Replica.objects.filter(deployment=row, beat_at__gt=alive).exists():
            services.stopped(row)
        return
    Replica.objects.update_or_create(
        deployment=row,
        node=node,
        defaults={"state": report.state, "memory_bytes": report.memory_bytes, "beat_at": timezone.now()},
    )
    shown = (report.state, report.error_code)
    if row.state in (State.LOADING, State.READY, State.FAILED) and shown != (row.state, row.error_code):
        if report.state == State.LOADING and row.state == State.READY:
            return  # a cell that starts again does not take the deployment out of service
        row.state, row.error_code = shown
        row.save(update_fields=["state", "error_code"])
        Generation.bump("deployments")


def beat(node: str) -> None:
    """The replicas of this node are alive."""
    with scope.operator("agent: beat"):
        Replica.objects.filter(node=node).update(beat_at=timezone.now())


def forget_replicas(node: str) -> None:
    """At the agent's start and end nothing is loaded here."""
    with scope.operator("agent: nothing is loaded"):
        Replica.objects.filter(node=node).delete()


def output_key(tenant: UUID, artefact: UUID) -> tuple[bytes, bytes] | None:
    """Header tag and data key of an artefact of that tenant that it may have back; of nothing else."""
    with scope.tenant(tenant, write=False):
        row = (
            Artefact.objects.select_related("tenant_key")
            .filter(id=artefact, kind__in=HANDED_BACK, state=Artefact.State.SEALED)
            .first()
        )
        return None if row is None else (bytes(row.header_tag), vault.data_key(row))


def after_failure() -> None:
    """A broken connection is not used again."""
    connections.close_all()

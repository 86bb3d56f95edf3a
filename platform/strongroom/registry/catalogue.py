"""Public models: published by their owner, listed for every tenant, adopted as a version of one's own registry.

An adopted version has no artefact: the agent opens the owner's. Withdrawing ends new loads; what is loaded serves on
until it is loaded again. Published again, it is there for its adopters again.
"""

from __future__ import annotations

import re
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from strongroom import ids
from strongroom.access.models import Generation
from strongroom.audit.services import record
from strongroom.errors import Conflict, Invalid, NotFound
from strongroom.registry import services
from strongroom.registry.models import Model, ModelVersion, PublicModel
from strongroom.rest.bodies import moment
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Tenant

REFERENCE = re.compile(r"([a-z0-9-]{1,63})/([a-z0-9-]{1,63})@([0-9]{1,9})")


def published() -> QuerySet[PublicModel]:
    """What every tenant may adopt, newest first by its pages."""
    return PublicModel.objects.filter(withdrawn_at__isnull=True)


def is_public(version: ModelVersion) -> bool:
    return published().filter(version_id=version.id).exists()


def publish(actor: Actor, version: ModelVersion) -> None:
    """Every tenant may deploy it from now on. Invalid, Conflict."""
    state = services.lock(version)  # of two that come at once one waits, and nobody deletes it now
    if state != ModelVersion.State.READY or version.artefact is None:
        raise Invalid(f"{version} is {state} and cannot be published", code="version_rejected")
    if version.format != "gguf":
        raise Invalid.field("/public", "can be true for language models only", code="not_implemented")
    if is_public(version):
        return
    withdrawn = PublicModel.objects.filter(version_id=version.id).order_by("-withdrawn_at").first()
    if withdrawn is not None:  # those who adopted it then have it again
        withdrawn.withdrawn_at = None
        withdrawn.save(update_fields=["withdrawn_at"])
        Generation.bump("deployments")
        record(actor, "model.publish", "model_version", version.id)
        return
    PublicModel.objects.create(
        owner_id=scope.tenant_id(),
        owner=Tenant.objects.get(id=scope.tenant_id()).name,
        model=version.model.name,
        number=version.number,
        version_id=version.id,
        task=version.model.task,
        format=version.format,
        size_bytes=version.size_bytes,
        parameters=version.parameters,
        interface=version.signature,
        card=version.card,
    )
    record(actor, "model.publish", "model_version", version.id)


def withdraw(actor: Actor, version: ModelVersion) -> None:
    """Nobody else loads it any more."""
    if published().filter(version_id=version.id).update(withdrawn_at=timezone.now()):
        record(actor, "model.withdraw", "model_version", version.id)


def find(reference: str) -> PublicModel:
    """`owner/model@version`; NotFound."""
    parts = REFERENCE.fullmatch(reference)
    rows = published().none() if parts is None else published().filter(owner=parts[1], model=parts[2], number=parts[3])
    if (found := rows.first()) is None:
        raise NotFound(f"there is no public model {reference!r}")
    return found


def adopt(actor: Actor, name: str, reference: str) -> ModelVersion:
    """A version of one's own that serves the public model. NotFound, Invalid, Conflict name_taken."""
    found = find(reference)
    services.check_name(name, found.task)
    model, _ = Model.objects.get_or_create(name=name, defaults={"task": found.task})
    model = Model.objects.select_for_update().get(id=model.id)
    if services.versions().filter(model=model, public=found).exists():
        raise Conflict(f"{name!r} has {found} already", code="name_taken")
    last = model.versions.order_by("-number").first()
    version = ModelVersion.objects.create(
        model=model,
        number=last.number + 1 if last else 1,
        format=found.format,
        public=found,
        size_bytes=found.size_bytes,
        parameters=found.parameters,
        signature=found.interface,
        card=found.card,
        lineage={"parent": str(found)},
    )
    record(actor, "model.adopt", "model_version", version.id, public=str(found))
    return version


def document(found: PublicModel) -> dict[str, Any]:
    """An entry of `/catalogue`."""
    return {
        "id": ids.text("ver", found.version_id),
        "name": str(found),
        "task": found.task,
        "format": found.format,
        "size_bytes": found.size_bytes,
        "parameters": found.parameters,
        "card": found.card,
        "created_at": moment(found.created_at),
    }

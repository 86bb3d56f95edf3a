"""The door of the registry: bring a model's file, register what a job made, name a version, stage it, delete it.

Knows nothing of jobs and deployments; what uses a version registers itself by `on_use`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from inference.language.interface import is_language
from strongroom import ids
from strongroom.audit.services import record
from strongroom.errors import Conflict, FieldError, Invalid, NotFound
from strongroom.registry.models import Model, ModelUpload, ModelVersion, PublicModel
from strongroom.rest.bodies import moment
from strongroom.tenants import names, scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

IMPORT_HOURS = 24
FORMATS = ("onnx", "onnx-zip", "gguf", "safetensors-zip")  # of uploads
SERVED_FORMATS = ("onnx", "gguf", "lora")

_in_use: list[Callable[[ModelVersion], bool]] = []


def on_use(check: Callable[[ModelVersion], bool]) -> None:
    """Registers a higher room's answer to "is this version served or read now?"."""
    _in_use.append(check)


@dataclass(frozen=True, slots=True)
class Upload:
    """A model's file on its way in."""

    draft: vault.Draft
    name: str
    format: str


def begin_upload(name: str, *, format: str = "onnx") -> Upload:
    """Everything that can be refused before the first byte. Invalid, LimitReached."""
    names.check("name", name)
    if format not in FORMATS:
        raise Invalid.field("?format", f"must be one of {', '.join(FORMATS)}, is {format!r}", code="choice")
    tenant_id = scope.tenant_id()
    vault.check_room(tenant_id)
    expires = timezone.now() + timedelta(hours=IMPORT_HOURS)
    return Upload(vault.new_artefact(tenant_id, "import", expires_at=expires), name, format)


def finish_upload(actor: Actor, upload: Upload, sha256_hex: str) -> dict[str, Any]:
    """The body of the answer; the artefact waits for a job of kind `import`, 24 hours at most."""
    artefact = upload.draft.row()
    ModelUpload.objects.create(artefact=artefact, name=upload.name, format=upload.format)
    record(actor, "model.upload", "artefact", artefact.id, size_bytes=artefact.size_bytes)
    return {
        "artefact": ids.text("art", artefact.id),
        "model": upload.name,
        "format": upload.format,
        "size_bytes": artefact.size_bytes,
        "fingerprint": f"sha256:{sha256_hex}",
        "expires_at": None if artefact.expires_at is None else moment(artefact.expires_at),
    }


def pending_import(artefact_id: UUID) -> ModelUpload:
    """The uploaded file of an import job. NotFound where there is none, or it was imported or destroyed."""
    rows = ModelUpload.objects.filter(artefact_id=artefact_id, artefact__state=Artefact.State.SEALED)
    if (upload := rows.select_related("artefact").first()) is None:
        hint = "PUT /api/v1/models/{name}/content first"
        problem = FieldError("/artefact", "not_found", "names no uploaded model", hint)
        raise NotFound("/artefact names no uploaded model", errors=[problem])
    return upload


def check_name(name: str, task: str) -> None:
    """Refuses a name that a model of another task has: Invalid at /register/model."""
    names.check("register/model", name)
    model = Model.objects.filter(name=name).first()
    if model is not None and model.task != task:
        raise Invalid(
            f"the model {name!r} exists with task {model.task}",
            code="invalid_spec",
            errors=[FieldError("/register/model", "task", f"is a model of task {model.task}", "choose another name")],
        )


def register(
    *,
    name: str,
    task: str,
    artefact: Artefact,
    result: dict[str, Any],
    lineage: dict[str, Any],
    job_id: UUID | None = None,
    format: str = "onnx",
    base: ModelVersion | None = None,
    stage: str = "candidate",
    reasons: Sequence[str] = (),
) -> ModelVersion:
    """A new version inside the caller's transaction; `reasons` make it `rejected`, never deployable.

    result: signature, evaluation, metrics, parameters, card as the job's process sealed them.
    """
    check_name(name, task)
    model, _ = Model.objects.get_or_create(name=name, defaults={"task": task})
    model = Model.objects.select_for_update().get(id=model.id)
    last = model.versions.order_by("-number").first()
    if stage == ModelVersion.Stage.PRODUCTION:
        _archive_production(model)
    return ModelVersion.objects.create(
        model=model,
        number=last.number + 1 if last else 1,
        state=ModelVersion.State.REJECTED if reasons else ModelVersion.State.READY,
        stage=stage,
        format=format,
        base=base,
        artefact=artefact,
        size_bytes=artefact.size_bytes,
        parameters=result.get("parameters"),
        metrics=result.get("metrics", {}),
        evaluation=result.get("evaluation"),
        signature=result["signature"],
        card=result.get("card"),
        lineage=lineage,
        reasons=list(reasons),
        job_id=job_id,
    )


def versions() -> QuerySet[ModelVersion]:
    """Every version of this tenant that is not deleted."""
    return ModelVersion.objects.exclude(state=ModelVersion.State.DELETED).select_related("model")


def models() -> QuerySet[Model]:
    """Every model of this tenant that has a version left."""
    return Model.objects.filter(id__in=versions().values("model"))


def find_model(name: str) -> Model:
    if not names.is_possible(name) or (model := models().filter(name=name).first()) is None:
        raise NotFound(f"there is no model {name!r}")
    return model


def resolve(name: str, number: int | None = None) -> ModelVersion:
    """A version that is not deleted, the newest without a number; NotFound."""
    rows = versions().filter(model__name=name) if names.is_possible(name) else versions().none()
    row = rows.order_by("-number").first() if number is None else rows.filter(number=number).first()
    if row is None:
        wanted = name if number is None else f"{name}@{number}"
        raise NotFound(f"there is no model version {wanted!r}")
    return row


def set_stage(actor: Actor, version: ModelVersion, stage: str) -> None:
    """Production is one version at most: the one before goes to `archived`. Invalid, Conflict version_rejected."""
    if stage != ModelVersion.Stage.PRODUCTION:
        raise Invalid.field("/stage", f"can be set to production only, is {stage!r}", code="choice")
    if version.state == ModelVersion.State.REJECTED:
        raise Invalid(f"{version} was rejected and cannot go to production", code="version_rejected")
    model = Model.objects.select_for_update().get(id=version.model_id)
    _archive_production(model, but=version)
    version.stage = ModelVersion.Stage.PRODUCTION
    version.save(update_fields=["stage"])
    record(actor, "model.stage", "model_version", version.id, stage=stage)


def _archive_production(model: Model, but: ModelVersion | None = None) -> None:
    """The model's row is locked: of two that come at once one stays."""
    rows = model.versions.filter(stage=ModelVersion.Stage.PRODUCTION)
    rows = rows if but is None else rows.exclude(id=but.id)
    rows.update(stage=ModelVersion.Stage.ARCHIVED)


def delete_version(actor: Actor, version: ModelVersion) -> None:
    """Destroys the artefact's key and object; the row stays for the lineage. Conflict in_use."""
    lock(version)  # nobody publishes it now
    if any(check(version) for check in _in_use):
        raise Conflict(f"{version} is served by a deployment or read by a job; stop it first", code="in_use")
    if (adapter := version.adapters.exclude(state=ModelVersion.State.DELETED).first()) is not None:
        raise Conflict(f"{version} is the base of {adapter}; delete that first", code="in_use")
    PublicModel.objects.filter(version_id=version.id, withdrawn_at__isnull=True).update(withdrawn_at=timezone.now())
    if version.artefact is not None:
        vault.destroy(version.artefact)
    version.state = ModelVersion.State.DELETED
    version.signature = version.evaluation = version.reasons = version.card = None
    version.save()
    record(actor, "model.delete", "model_version", version.id)


def delete(actor: Actor, name: str) -> None:
    """Deletes every version. NotFound, Conflict in_use (then none is deleted)."""
    find_model(name)
    for version in versions().filter(model__name=name).order_by("-number"):  # an adapter before its base
        delete_version(actor, version)


def lock(version: ModelVersion) -> str:
    """Until the transaction's end; its state, as it is now."""
    return str(ModelVersion.objects.select_for_update().values_list("state", flat=True).get(id=version.id))


def model_document(model: Model) -> dict[str, Any]:
    """The body of `/models/{name}`."""
    numbers = dict(versions().filter(model=model).order_by("number").values_list("number", "stage"))
    production = [number for number, stage in numbers.items() if stage == ModelVersion.Stage.PRODUCTION]
    return {
        "id": ids.text("mdl", model.id),
        "name": model.name,
        "task": model.task,
        "description": model.description or None,
        "latest_version": max(numbers),
        "production_version": production[0] if production else None,
        "created_at": moment(model.created_at),
    }


def document(version: ModelVersion) -> dict[str, Any]:
    """The body of `/models/{name}/versions/{n}`."""
    return {
        "id": ids.text("ver", version.id),
        "model": version.model.name,
        "version": version.number,
        "task": version.model.task,
        "state": version.state,
        "stage": version.stage,
        "reasons": version.reasons or [],
        "format": version.format,
        "size_bytes": version.size_bytes,
        "parameters": version.parameters,
        "metrics": version.metrics,
        "evaluation": version.evaluation,
        "signature": public_signature(version.signature),
        "card": version.card,
        "public": None if version.public is None else str(version.public),
        "lineage": version.lineage,
        "created_at": moment(version.created_at),
    }


def public_signature(signature: dict[str, Any] | None) -> dict[str, Any] | None:
    """Inputs, outputs and classes; what the engine keeps beside them is its own. A language model has none: its card
    says what it takes."""
    if signature is None or is_language(signature):
        return None
    return {key: signature.get(key) for key in ("inputs", "outputs", "classes")}

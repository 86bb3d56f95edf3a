"""The door of the deployments: make, switch, stop; the agent (agent.py) does what the rows say.

In this version a deployment has exactly one live model version of weight 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from strongroom import ids
from strongroom.access.models import Generation
from strongroom.audit.services import record
from strongroom.deployments.models import Deployment, Traffic
from strongroom.errors import Conflict, FieldError, Invalid, NotFound
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.rest.bodies import moment
from strongroom.tenants import names, scope
from strongroom.tenants.actor import Actor

State = Deployment.State
LIMITS: dict[str, Any] = {"requests_per_second": None, "concurrency": 64, "deadline_ms": 30_000}
LANGUAGE_LIMITS = LIMITS | {"deadline_ms": 600_000}  # as long as OpenAI's SDK waits
LANGUAGE_FORMATS = ("gguf", "lora")
OF_A_KIND = frozenset({"versions", "output_policy", "context_tokens", "share"})
POLICY: dict[str, Any] = {"top_k": None, "decimals": None, "scores": True}
FAULTS = {
    "artefact_corrupt": (
        "the sealed model is not what was sealed: it was changed, exchanged or lost",
        "train or import it again, switch to that version, and tell the operator",
    ),
    "expired": ("the model or its keys were destroyed", "deploy another version"),
    "not_found": ("the model version was deleted, or its owner withdrew it", "deploy another version"),
    "load_killed": ("loading the model ended its process, twice", "the model may need more memory than a cell has"),
}
LIVE = (State.LOADING, State.READY, State.FAILED)


def deploy(actor: Actor, document: Mapping[str, Any]) -> Deployment:
    """A new deployment in state `loading`. Invalid, NotFound (version), Conflict name_taken."""
    name = names.check("name", document.get("name"))
    if document.get("device", "cpu") != "cpu":
        raise Invalid.field("/device", f"must be cpu, is {document['device']!r}", code="not_implemented")
    version = _live_version(document.get("versions") or [])
    if live().filter(name=name).exists():
        raise _taken(name)
    for drained in Deployment.objects.filter(name=name, state=State.DRAINING):
        stopped(drained)  # the name is free at once: the agent puts the new one in its place
        drained.replicas.all().delete()
    row = Deployment(name=name, created_by_kind=actor.kind, created_by_id=actor.id)
    _set(row, document)
    _check(row, version)
    try:
        with transaction.atomic(using=scope.alias()):
            row.save()
    except IntegrityError:  # another request was first
        raise _taken(name) from None
    Traffic.objects.create(deployment=row, version=version)
    _announce(actor, "deployment.create", row)
    return row


def _taken(name: str) -> Conflict:
    return Conflict(f"a deployment named {name!r} exists; PATCH it or choose another name", code="name_taken")


def switch(actor: Actor, name: str, document: Mapping[str, Any]) -> Deployment:
    """Changes versions, limits, batching or output policy of a live deployment; the old version serves meanwhile."""
    row = resolve(name, lock=True)
    if "versions" in document:
        _point(row, _live_version(document["versions"] or []))
    _set(row, document)
    traffic = row.traffic.select_related("version__model").first()
    if traffic is not None and not OF_A_KIND.isdisjoint(document):
        _check(row, traffic.version)
    row.save()
    _announce(actor, "deployment.switch", row)
    return row


def deploy_version(actor: Actor, name: str, version: ModelVersion) -> Deployment:
    """What a job's `register.deploy` asks: the deployment is made, or switched to the version."""
    if (row := live().filter(name=name).first()) is None:
        return deploy(actor, {"name": name, "versions": [_traffic_document(version)]})
    _point(row, version)
    if version.format in LANGUAGE_FORMATS:  # what the other kind has goes with it
        row.output_policy = {}
    else:
        row.context_tokens, row.share = None, False
    row.save()
    _announce(actor, "deployment.switch", row)
    return row


def stop(actor: Actor, name: str) -> Deployment:
    """Draining; the agent unloads it and makes it `stopped`. The name is free at once."""
    row = resolve(name, lock=True)
    row.state = State.DRAINING
    row.save(update_fields=["state"])
    _announce(actor, "deployment.stop", row)
    return row


def stopped(row: Deployment) -> None:
    """Called by the agent once no cell serves it."""
    Deployment.objects.filter(id=row.id).update(state=State.STOPPED, stopped_at=timezone.now())
    Generation.bump("deployments")


def live() -> QuerySet[Deployment]:
    """Deployments that are not draining or stopped."""
    return Deployment.objects.filter(state__in=LIVE)


def in_words() -> QuerySet[Deployment]:
    """Live deployments that take words: language models and text encoders."""
    version = "traffic__version"
    speaks = Q(**{f"{version}__format__in": LANGUAGE_FORMATS})
    encodes = Q(**{f"{version}__model__task": "embedding", f"{version}__card__isnull": False})
    return live().filter(speaks | encodes, traffic__mode="live")


def resolve(name: str, *, lock: bool = False) -> Deployment:
    """A live deployment of this tenant; NotFound."""
    rows = live().select_for_update() if lock else live()
    if not names.is_possible(name) or (row := rows.filter(name=name).first()) is None:
        raise NotFound(f"there is no deployment {name!r}")
    return row


def uses(version: ModelVersion) -> bool:
    """Whether a deployment that is not stopped serves the version."""
    return Traffic.objects.filter(version=version).exclude(deployment__state=State.STOPPED).exists()


def document(row: Deployment) -> dict[str, Any]:
    """The body of the native API."""
    traffic = list(row.traffic.select_related("version__model"))
    ready = row.replicas.filter(state="ready").count()
    return {
        "id": ids.text("dep", row.id),
        "name": row.name,
        "state": row.state,
        "versions": [_traffic_document(t.version, t.weight, t.mode) for t in traffic],
        "device": row.device,
        "replicas": {"min": row.replicas_min, "max": row.replicas_max, "ready": ready},
        "batching": {"max_batch": row.max_batch, "max_delay_ms": row.max_delay_ms},
        "context_tokens": row.context_tokens,
        "share": row.share,
        "limits": limits(row, traffic[0].version.format if traffic else "onnx"),
        "output_policy": POLICY | row.output_policy,
        "error": _error(row),
        "urls": {"predict": f"/api/v1/deployments/{row.name}/predict", "open_inference": f"/v2/models/{row.name}"},
        "created_at": moment(row.created_at),
    }


def limits(row: Deployment, format: str) -> dict[str, Any]:
    """The deployment's own, and the defaults of its kind for the rest."""
    return (LANGUAGE_LIMITS if format in LANGUAGE_FORMATS else LIMITS) | row.limits


def _error(row: Deployment) -> dict[str, str | None] | None:
    if row.error_code is None:
        return None
    message, hint = FAULTS.get(row.error_code, ("the model could not be loaded", "see the agent's log"))
    return {"code": row.error_code, "message": message, "hint": hint}


def _traffic_document(version: ModelVersion, weight: int = 100, mode: str = "live") -> dict[str, Any]:
    return {"model": version.model.name, "version": version.number, "weight": weight, "mode": mode}


def _live_version(versions: list[Mapping[str, Any]]) -> ModelVersion:
    """The one version that all requests go to; every problem of the list at once."""
    problems = []
    if len(versions) != 1:
        problems.append(FieldError("/versions", "length", f"must name exactly one version, names {len(versions)}"))
    for index, item in enumerate(versions):
        for field, wanted in (("weight", 100), ("mode", "live")):
            if item.get(field, wanted) != wanted:
                message = f"must be {wanted}, is {item[field]}"
                problems.append(FieldError(f"/versions/{index}/{field}", "not_implemented", message))
    if problems:
        raise Invalid(f"{problems[0].path} {problems[0].message}", errors=problems)
    try:
        version = registry.resolve(versions[0]["model"], versions[0].get("version"))
    except NotFound as error:
        problem = FieldError("/versions/0", "not_found", error.detail, "GET /api/v1/models")
        raise NotFound(error.detail, errors=[problem]) from None
    if version.state != ModelVersion.State.READY:
        raise Invalid(f"{version} was {version.state} and cannot be deployed", code="version_rejected")
    return version


def _point(row: Deployment, version: ModelVersion) -> None:
    row.traffic.exclude(version=version).delete()
    Traffic.objects.get_or_create(deployment=row, version=version)
    if row.state == State.FAILED:
        row.state = State.LOADING
    row.error_code = None


def _set(row: Deployment, document: Mapping[str, Any]) -> None:
    limits = row.limits | dict(document.get("limits") or {})
    row.limits = {name: value for name, value in limits.items() if value is not None}  # the default counts
    row.output_policy = row.output_policy | dict(document.get("output_policy") or {})
    batching = document.get("batching") or {}
    row.max_batch = batching.get("max_batch", row.max_batch)
    row.max_delay_ms = batching.get("max_delay_ms", row.max_delay_ms)
    row.context_tokens = document.get("context_tokens", row.context_tokens)
    row.share = document.get("share", row.share)


def _check(row: Deployment, version: ModelVersion) -> None:
    """Invalid where the version cannot do what the deployment asks for."""
    usual: dict[str, Any]
    if version.format in LANGUAGE_FORMATS:
        kind, usual = "model of arrays", {f"output_policy/{name}": value for name, value in POLICY.items()}
        now = {f"output_policy/{name}": value for name, value in row.output_policy.items()}
    else:
        kind, usual = "language model", {"context_tokens": None, "share": False}
        now = {name: getattr(row, name) for name in usual}
    wrong = [name for name, value in usual.items() if now.get(name, value) != value]
    if wrong:
        said = f"is of a {kind}, which {version} is not"
        hint = "leave it out, or give null (false for share, true for scores)"
        raise Invalid.all([FieldError(f"/{name}", "kind", said, hint) for name in wrong])


def _announce(actor: Actor, action: str, row: Deployment) -> None:
    Generation.bump("deployments")
    record(actor, action, "deployment", row.id)

"""Asynchronous predictions as callers see them: jobs of kind `predict`; `pred_…` and `job_…` are one uuid.

Rows and inputs are sealed as they are submitted and destroyed with the job's end. How they are answered is in
answering.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from django.utils import timezone

from strongroom import ids
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments import services as deployments
from strongroom.errors import Conflict, FieldError, Gone, Invalid, NotFound
from strongroom.jobs import plans
from strongroom.jobs.models import Job
from strongroom.jobs.states import TERMINAL
from strongroom.rest.bodies import moment, optional_moment
from strongroom.rest.problem import MAX_PROBLEMS, nearest
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact
from training import spec as specs

CHOICE = ("rows", "inputs", "dataset")


def submit(actor: Actor, document: object, *, retry_of: UUID | None = None) -> Job:
    """One of rows, inputs, dataset for a deployment. Invalid, NotFound, LimitReached."""
    name, field, content = _read(document)
    deployment = deployments.resolve(name)
    spec: dict[str, Any] = {"kind": "predict", "deployment": name}
    version: DatasetVersion | None = None
    artefact: Artefact | None = None
    if field == "dataset":
        version = _version(content)
        spec["dataset"] = {"name": version.dataset.name, "version": version.number}
    else:
        body = json.dumps({field: content}, allow_nan=False).encode()
        plans.check_queue()  # what is sealed and then refused would lie there for a day
        vault.check_room(scope.tenant_id(), len(body))
        artefact = vault.seal_bytes(scope.tenant_id(), "input", body)
    plan = plans.Plan(specs.load(spec), name, version, artefact)
    return plans.enqueue(actor, plan, retry_of=retry_of, deployment=deployment)


def resubmit(actor: Actor, job: Job) -> Job:
    """A retry: of a data set only, since rows and inputs are destroyed with the job's end. Gone."""
    if job.dataset_version is None:
        raise Gone("the rows of the prediction are not kept; POST them to /api/v1/predictions again")
    reference = job.spec["dataset"]
    document = {"deployment": job.spec["deployment"], "dataset": f"{reference['name']}@{reference['version']}"}
    return submit(actor, document, retry_of=job.id)


def find(prediction_id: UUID | None) -> Job:
    """The prediction's job. NotFound; Gone once it has expired."""
    job = None if prediction_id is None else Job.objects.filter(id=prediction_id, kind="predict").first()
    if job is None:
        raise NotFound("there is no such prediction")
    if job.expires_at is not None and job.expires_at <= timezone.now():
        raise Gone(f"the prediction expired at {moment(job.expires_at)}; predictions are kept for 24 hours")
    return job


def output(job: Job) -> Artefact:
    """The artefact (kind `output`, JSON Lines) to download. Conflict job_unfinished, NotFound."""
    if job.state not in TERMINAL:
        raise Conflict(
            f"the prediction is {job.state}; its output is there when it has succeeded", code="job_unfinished"
        )
    if job.output_artefact is None:
        raise NotFound("the prediction has no output to download")
    return job.output_artefact


def document(job: Job) -> dict[str, Any]:
    """The body of `/predictions/{id}`."""
    result = job.result or {}
    id = ids.text("pred", job.id)
    shown = None
    if job.result is not None:
        download = f"/api/v1/predictions/{id}/output" if job.output_artefact_id is not None else None
        shown = {"predictions": result["predictions"], "rows": result["rows"], "download": download}
    return {
        "id": id,
        "state": job.state,
        "deployment": job.spec["deployment"],
        "model": result.get("model"),
        "version": result.get("version"),
        "progress": job.progress,
        "output": shown,
        "error": job.error,
        "created_at": moment(job.created_at),
        "finished_at": optional_moment(job.finished_at),
        "expires_at": optional_moment(job.expires_at),
    }


def _read(document: object) -> tuple[str, str, Any]:
    """Deployment, which of the three is set, and its content; Invalid with every problem."""
    if not isinstance(document, Mapping):
        raise Invalid.field("", "must be an object")
    known = ("deployment", *CHOICE)
    unknown = islice((name for name in document if name not in known), MAX_PROBLEMS)
    problems = [FieldError(f"/{n}", "extra_forbidden", "is not a known field", nearest(n, known)) for n in unknown]
    name = document.get("deployment")
    if not isinstance(name, str):
        problems.append(FieldError("/deployment", "required", "must name a deployment"))
    given = [field for field in CHOICE if document.get(field) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "none"
        problems.append(FieldError("", "one_of", f"must have exactly one of {', '.join(CHOICE)}, has {said}"))
    problems += [problem for field in given if (problem := _fault(field, document[field])) is not None]
    if problems:
        raise Invalid.all(problems)
    return str(name), given[0], document[given[0]]


def _fault(field: str, value: Any) -> FieldError | None:
    if field == "rows" and not (isinstance(value, list) and value and all(isinstance(row, dict) for row in value)):
        return FieldError("/rows", "rows", "must be a list of at least one object", '[{"column": value}]')
    if field == "inputs" and not isinstance(value, dict):
        return FieldError("/inputs", "inputs", "must be an object of arrays by input name")
    if field == "dataset" and not isinstance(value, str):
        return FieldError("/dataset", "dataset", "must be a text", "for example 'digits@1'")
    return None


def _version(text: str) -> DatasetVersion:
    name, at, number = text.partition("@")
    if at and not (number.isdecimal() and len(number) < 10):
        raise Invalid.field("/dataset", f"must be NAME or NAME@NUMBER, is {text!r}", hint="for example 'digits@1'")
    return plans.ready_version(name, int(number) if at else None, "/dataset")

"""/v1/fine_tuning/jobs: fine-tunings as OpenAI has them: made of an uploaded file, listed, read, cancelled, followed.

Every fine-tuning of the tenant is one of these, whichever way it was submitted; its id is the job's. What a request
means is openai/tuning.py's, what such a job is jobs/services.py knows, and tuned.py writes it down.
"""

from __future__ import annotations

from django.db.models import QuerySet

from strongroom import ids
from strongroom.access.services import Principal
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments import services as deployments
from strongroom.edge import database, http, limits, principals, watch
from strongroom.edge.openai import pages, tuned
from strongroom.errors import FieldError, Invalid, NotFound
from strongroom.files import services as files
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Event, Job
from strongroom.openai import requests, resources, tuning
from strongroom.openai.tuning import TuningRequest
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope

MAX_BODY_BYTES = 64 * 1024
USUAL_LIMIT, MOST_LIMIT = 20, 100
CHECK_SECONDS = 50.0  # a file that was sent just now is looked through meanwhile
CANCEL_SECONDS = 5.0


async def create(request: http.Request) -> http.Answer:
    """POST /v1/fine_tuning/jobs"""
    principal = await _principal(request, "jobs:write")
    body = await limits.body(request, principal.tenant_id, MAX_BODY_BYTES)
    if request.media_type != "application/json":
        raise http.unsupported(request.media_type, ["application/json"])
    asked = requests.read(TuningRequest, http.parse(body))
    row = await database.run(_checked, principal, asked)
    await watch.WATCHES.until_done(row, CHECK_SECONDS)
    return http.Answer.of(200, await database.run(_submitted, principal, asked))


async def listed(request: http.Request) -> http.Answer:
    """GET /v1/fine_tuning/jobs"""
    principal = await _principal(request, "jobs:read")
    asked, _ = pages.wanted(request, "job", usual=USUAL_LIMIT, most=MOST_LIMIT)
    return http.Answer.of(200, await database.run(_page, principal, asked))


async def read(request: http.Request, id: str) -> http.Answer:
    """GET /v1/fine_tuning/jobs/{id}"""
    principal = await _principal(request, "jobs:read")
    return http.Answer.of(200, await database.run(_document, principal, id))


async def cancel(request: http.Request, id: str) -> http.Answer:
    """POST /v1/fine_tuning/jobs/{id}/cancel"""
    principal = await _principal(request, "jobs:write")
    await watch.WATCHES.until_done(await database.run(_cancelled, principal, id), CANCEL_SECONDS)
    return http.Answer.of(200, await database.run(_document, principal, id))


async def pause(request: http.Request, id: str) -> http.Answer:
    """POST /v1/fine_tuning/jobs/{id}/pause and /resume"""
    principal = await _principal(request, "jobs:write")
    await database.run(_document, principal, id)
    what = "a fine-tuning is neither paused nor resumed: cancel it, and submit it again"
    raise Invalid.all([FieldError("/fine_tuning_job_id", "unsupported_value", what)])


async def events(request: http.Request, id: str) -> http.Answer:
    """GET /v1/fine_tuning/jobs/{id}/events"""
    principal = await _principal(request, "jobs:read")
    asked, _ = pages.wanted(request, tuned.EVENT, usual=USUAL_LIMIT, most=MOST_LIMIT)
    return http.Answer.of(200, await database.run(_events, principal, id, asked))


async def checkpoints(request: http.Request, id: str) -> http.Answer:
    """GET /v1/fine_tuning/jobs/{id}/checkpoints"""
    principal = await _principal(request, "jobs:read")
    asked, _ = pages.wanted(request, tuned.CHECKPOINT, usual=10, most=MOST_LIMIT)
    return http.Answer.of(200, await database.run(_checkpoints, principal, id, asked))


async def _principal(request: http.Request, needed: str) -> Principal:
    principal = await principals.of(request)
    principal.require(needed)
    return principal


# --- submitting; each runs in a thread


def _checked(principal: Principal, asked: TuningRequest) -> watch.Row:
    """The data set whose check is waited for."""
    with scope.tenant(principal.tenant_id):
        version = files.training_version(asked.training_file)
        return watch.Row("dataset", version.dataset_id, version.number)


def _submitted(principal: Principal, asked: TuningRequest) -> resources.Json:
    with scope.tenant(principal.tenant_id):
        version, base = _readable(asked.training_file), _base(principal, asked.model)
        document = asked.document((base.model.name, base.number), (version.dataset.name, version.number))
        try:
            plan = jobs.validate(document)
        except (Invalid, NotFound) as error:
            raise tuning.as_asked(error) from None
        return tuned.document(jobs.submit_plan(principal.actor, plan, metadata=asked.metadata))


def _readable(text_id: str) -> DatasetVersion:
    """The file's rows; Invalid with what its check found."""
    version = files.training_version(text_id)
    if version.state == DatasetVersion.State.FAILED:
        error = version.error or {}
        said = f"cannot be learned from: {error.get('message')}"
        raise Invalid.field("/training_file", said, code=str(error.get("code")), hint=error.get("hint"))
    return version


def _base(principal: Principal, name: str) -> ModelVersion:
    """Of a deployment, as `/v1/models` lists them, what it serves; else a model of the registry, `name` or `name@1`."""
    row = deployments.live().filter(name=name).first() if "\0" not in name else None
    traffic = None if row is None else row.traffic.select_related("version__model").first()
    if traffic is not None:
        principal.require_model(name)
        return traffic.version
    model, at, number = name.partition("@")
    try:
        if at and not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise NotFound(f"there is no model version {name!r}")
        return registry.resolve(model, int(number) if at else None)
    except NotFound as error:
        hint = "name a deployment of GET /v1/models, or a model and its version, such as smollm2@1"
        raise NotFound(error.detail, errors=[FieldError("/model", "model_not_found", error.detail, hint)]) from None


# --- reading; each runs in a thread


def _found(id: str) -> Job:
    job_id = ids.parse("job", id)
    if job_id is None or (job := _jobs().filter(id=job_id).first()) is None:
        raise NotFound("there is no such fine-tuning job")
    return job


def _jobs() -> QuerySet[Job]:
    return jobs.jobs(kind="finetune").select_related("base_version__model", "dataset_version__dataset")


def _page(principal: Principal, asked: pages.Wanted) -> resources.Json:
    with scope.tenant(principal.tenant_id, write=False):
        return pages.page(_jobs(), asked, tuned.document)


def _document(principal: Principal, id: str) -> resources.Json:
    with scope.tenant(principal.tenant_id, write=False):
        return tuned.document(_found(id))


def _cancelled(principal: Principal, id: str) -> watch.Row:
    with scope.tenant(principal.tenant_id):
        return watch.Row("job", jobs.cancel(principal.actor, _found(id)).id)


def _events(principal: Principal, id: str, asked: pages.Wanted) -> resources.Json:
    """Newest first, unless asked otherwise."""
    with scope.tenant(principal.tenant_id, write=False):
        job = _found(id)
        rows = Event.objects.filter(job=job, kind__in=("state", "metric"))
        if asked.after is not None:
            number = min(asked.after.int, 2**63 - 1)
            rows = rows.filter(id__lt=number) if asked.newest_first else rows.filter(id__gt=number)
        whole = pages.Wanted(None, asked.limit, asked.newest_first)
        return pages.page(rows, whole, lambda event: tuned.event(job, event))


def _checkpoints(principal: Principal, id: str, asked: pages.Wanted) -> resources.Json:
    with scope.tenant(principal.tenant_id, write=False):
        found = tuned.checkpoint(_found(id))
        return resources.page([] if found is None or asked.after is not None else [found], False)

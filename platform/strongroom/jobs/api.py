"""Jobs in the native API: `/jobs`, `/jobs/{id}`, cancel, retry, logs, metrics. (`…/events` is the edge's.)"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom import ids
from strongroom.jobs import services
from strongroom.jobs.models import Job as JobRow
from strongroom.jobs.states import State
from strongroom.rest import pages
from strongroom.rest.fields import Moment, PageQuery, PrefixedId, Query, QueryFlag, StrictSerializer
from strongroom.rest.schema import id_parameter, page_of
from strongroom.rest.views import ResourceView
from strongroom.tenants.names import NAME
from training.spec import FinetuneSpec, ImportSpec, TrainSpec

KINDS = ("train", "finetune", "import", "check", "predict", "batch")


class JobMaker(serializers.Serializer):
    kind = serializers.ChoiceField(["key", "member", "operator", "system"])
    id = serializers.CharField(allow_null=True)


class JobProgress(serializers.Serializer):
    """A training has epochs and steps, the other kinds items."""

    fraction = serializers.FloatField()
    epoch = serializers.IntegerField(required=False)
    epochs = serializers.IntegerField(required=False)
    step = serializers.IntegerField(required=False)
    steps = serializers.IntegerField(required=False)
    eta_seconds = serializers.FloatField(required=False, allow_null=True)
    items = serializers.IntegerField(required=False)
    items_total = serializers.IntegerField(required=False)


class JobUsage(serializers.Serializer):
    core_seconds = serializers.FloatField()
    gpu_seconds = serializers.FloatField()
    peak_memory_bytes = serializers.IntegerField()
    energy_joules = serializers.FloatField(allow_null=True)
    energy_source = serializers.CharField()


class JobError(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    hint = serializers.CharField(allow_null=True)


class JobItem(serializers.Serializer):
    """A job as it is listed: without its spec."""

    id = PrefixedId("job")
    kind = serializers.ChoiceField(KINDS)
    name = serializers.CharField()
    state = serializers.ChoiceField(State.choices)
    cancel_requested_at = Moment(allow_null=True)
    attempt = serializers.IntegerField()
    max_attempts = serializers.IntegerField()
    priority = serializers.IntegerField()
    queue = serializers.CharField()
    worker = serializers.CharField(allow_null=True)
    device = serializers.CharField(allow_null=True)
    progress = JobProgress(allow_null=True)
    metrics = serializers.DictField(child=serializers.FloatField())
    usage = JobUsage(allow_null=True)
    cost = serializers.CharField(allow_null=True)
    currency = serializers.CharField(allow_null=True)
    result = serializers.DictField(allow_null=True)
    error = JobError(allow_null=True)
    retry_of = PrefixedId("job", allow_null=True)
    created_at = Moment()
    started_at = Moment(allow_null=True)
    finished_at = Moment(allow_null=True)
    created_by = JobMaker()
    spec_sha256 = serializers.CharField()


class Job(JobItem):
    """A job."""

    spec = serializers.DictField()


class DryRun(serializers.Serializer):
    valid = serializers.BooleanField()
    spec = serializers.DictField()
    spec_sha256 = serializers.CharField()


class LogLine(serializers.Serializer):
    id = serializers.IntegerField()
    at = Moment()
    level = serializers.ChoiceField(["debug", "info", "warning", "error"])
    text = serializers.CharField()


class Metric(serializers.Serializer):
    name = serializers.CharField()
    epoch = serializers.IntegerField(allow_null=True)
    step = serializers.IntegerField(allow_null=True)
    value = serializers.FloatField()
    at = Moment()


JobPage = page_of(JobItem, "JobPage")
LogPage = page_of(LogLine, "LogPage")
MetricPage = page_of(Metric, "MetricPage")


class JobsQuery(PageQuery):
    state = serializers.ChoiceField(State.choices, default=None)
    kind = serializers.ChoiceField(KINDS, default=None)
    name = serializers.RegexField(rf"^{NAME.pattern}\Z", default=None)


class SubmitQuery(Query):
    dry_run = QueryFlag(default=False, help_text="Only look whether the job could be submitted.")


class LogsQuery(PageQuery):
    after = serializers.IntegerField(min_value=0, max_value=2**63 - 1, default=0, help_text="Lines after this id.")


class JobNothing(StrictSerializer):
    """`{}`, or no body."""


SPECS: Any = [TrainSpec, FinetuneSpec, ImportSpec]  # drf-spectacular draws pydantic's models, its types know only DRF's
SPEC = PolymorphicProxySerializer("JobSpec", SPECS, resource_type_field_name=None)


class JobsView(ResourceView):
    scopes = {"GET": "jobs:read", "POST": "jobs:write"}
    queries = {"GET": JobsQuery, "POST": SubmitQuery}
    idempotent = True

    @extend_schema(operation_id="list_jobs", tags=["jobs"], parameters=[JobsQuery], responses=JobPage)
    def get(self, request: Any) -> Response:
        """The tenant's jobs, newest first."""
        query = dict(self.query)
        rows = services.jobs(state=query.pop("state"), kind=query.pop("kind"), name=query.pop("name"))
        return Response(pages.page(rows.defer("spec"), lambda job: services.document(job, spec=False), **query))

    @extend_schema(
        operation_id="submit_job",
        tags=["jobs"],
        parameters=[SubmitQuery],
        request=SPEC,
        responses={202: Job, 200: DryRun},
    )
    def post(self, request: Any) -> Response:
        """Submits a training, a fine-tuning or an import; with `dry_run` only says what would run."""
        plan = services.validate(request.data)
        services.check_rights(request.principal, plan.document)
        if self.query["dry_run"]:
            return Response({"valid": True, "spec": plan.document, "spec_sha256": plan.sha256})
        return _accepted(services.submit_plan(self.actor, plan))


class JobView(ResourceView):
    scopes = {"GET": "jobs:read", "DELETE": "jobs:write"}

    @extend_schema(operation_id="read_job", tags=["jobs"], parameters=[id_parameter("job")], responses=Job)
    def get(self, request: Any, id: UUID) -> Response:
        """One job with its spec."""
        return Response(services.document(services.find(id)))

    @extend_schema(operation_id="delete_job", tags=["jobs"], parameters=[id_parameter("job")], responses={204: None})
    def delete(self, request: Any, id: UUID) -> Response:
        """Forgets a job that has ended, its log and its events; what it made stays."""
        services.delete(self.actor, services.find(id))
        return Response(status=204)


class CancelView(ResourceView):
    scopes = {"POST": "jobs:write"}

    @extend_schema(
        operation_id="cancel_job",
        tags=["jobs"],
        parameters=[id_parameter("job")],
        request=JobNothing,
        responses={202: Job},
    )
    def post(self, request: Any, id: UUID) -> Response:
        """Ends a waiting job at once, a running one within a second; again changes nothing."""
        self.body(JobNothing)
        return _accepted(services.cancel(self.actor, services.find(id)))


class RetryView(ResourceView):
    scopes = {"POST": "jobs:write"}
    idempotent = True

    @extend_schema(
        operation_id="retry_job",
        tags=["jobs"],
        parameters=[id_parameter("job")],
        request=JobNothing,
        responses={202: Job},
    )
    def post(self, request: Any, id: UUID) -> Response:
        """A new job from the spec of one that has ended."""
        self.body(JobNothing)
        job = services.find(id)
        services.check_rights(request.principal, job.spec)
        return _accepted(services.retry(self.actor, job))


class LogsView(ResourceView):
    scopes = {"GET": "jobs:read"}
    queries = {"GET": LogsQuery}

    @extend_schema(
        operation_id="read_job_log", tags=["jobs"], parameters=[id_parameter("job"), LogsQuery], responses=LogPage
    )
    def get(self, request: Any, id: UUID) -> Response:
        """The job's log, oldest first."""
        query = dict(self.query)
        rows = services.log_lines(services.find(id), query.pop("after"))
        return Response(pages.page(rows, services.log_document, oldest_first=True, **query))


class MetricsView(ResourceView):
    scopes = {"GET": "jobs:read"}
    queries = {"GET": PageQuery}

    @extend_schema(
        operation_id="read_job_metrics",
        tags=["jobs"],
        parameters=[id_parameter("job"), PageQuery],
        responses=MetricPage,
    )
    def get(self, request: Any, id: UUID) -> Response:
        """The job's metrics, oldest first."""
        rows = services.metric_events(services.find(id))
        return Response(pages.page(rows, services.metric_document, oldest_first=True, **self.query))


def _accepted(job: JobRow) -> Response:
    location = f"/api/v1/jobs/{ids.text('job', job.id)}"
    return Response(services.document(job), status=202, headers={"Location": location})


urlpatterns = [
    path("jobs", JobsView.as_view()),
    path("jobs/<job_id:id>", JobView.as_view()),
    path("jobs/<job_id:id>/cancel", CancelView.as_view()),
    path("jobs/<job_id:id>/retry", RetryView.as_view()),
    path("jobs/<job_id:id>/logs", LogsView.as_view()),
    path("jobs/<job_id:id>/metrics", MetricsView.as_view()),
]

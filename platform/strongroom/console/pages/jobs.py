"""Jobs in the panel: the list, the forms that train, tune or bring a model, the page that moves while a job runs."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.decorators import display

from strongroom.console.charts import curves
from strongroom.console.forms.document import DocumentForm
from strongroom.console.forms.jobs import ImportForm, TrainingForm
from strongroom.console.forms.tuning import TuningForm
from strongroom.console.members import TenantAdmin, actor_of, principal_of
from strongroom.console.templatetags.console import ago, badge, lasted, percent
from strongroom.jobs import services
from strongroom.jobs.models import Job
from strongroom.jobs.states import TERMINAL
from strongroom.registry import services as registry

LINES = 200  # of the log's end
EVENTS = 20_000  # metric events read for the curves: the last ones


class JobAdmin(TenantAdmin):
    slug, list_title = "jobs", "Jobs"
    view_scope, change_scope = "jobs:read", "jobs:write"
    adds = {"train": "Submit training job", "tune": "Fine-tune a model", "bring": "Bring a model"}
    object_template, live_template = "console/job.html", "console/job_live.html"
    verbs = ("cancel", "retry", "delete")
    list_display = ("name", "shown_state", "kind", "shown_progress", "shown_duration", "shown_created")
    list_filter = ("state", "kind")
    search_fields = ("name",)
    ordering = ("-id",)

    @display(description="state")
    def shown_state(self, job: Job) -> str:
        return badge("cancelling" if is_cancelling(job) else job.state)

    @display(description="progress")
    def shown_progress(self, job: Job) -> str:
        return percent((job.progress or {}).get("fraction"))

    @display(description="took")
    def shown_duration(self, job: Job) -> str:
        return lasted(job.started_at, job.finished_at)

    @admin.display(description="submitted", ordering="id")
    def shown_created(self, job: Job) -> str:
        return ago(job.created_at)

    # --- one job

    def object_context(self, request: HttpRequest, obj: Job) -> dict[str, Any]:
        events = services.metric_events(obj).order_by("-id").values_list("data", flat=True)[:EVENTS]
        lines = list(services.log_lines(obj).order_by("-id")[:LINES])
        return {
            "job": services.document(obj),
            "curves": curves(reversed(list(events))),
            "lines": lines[::-1],
            "metrics": sorted(obj.metrics.items()),
            "terminal": obj.state in TERMINAL,
            "is_cancelling": is_cancelling(obj),
            "version": self._made(request, obj),
            "dataset": obj.dataset_version,
            "base": obj.base_version if _sees_models(request) else None,
            "retry_of": obj.retry_of,
        }

    def _made(self, request: HttpRequest, job: Job) -> Any:
        """The model version that it registered, while there is one."""
        if not _sees_models(request):
            return None
        return registry.versions().filter(job_id=job.id).first()

    def is_moving(self, obj: Job) -> bool:
        return obj.state not in TERMINAL

    def state_seen(self, obj: Job) -> str:
        return f"{obj.state}-{is_cancelling(obj)}"

    # --- buttons

    def cancel(self, request: HttpRequest, job: Job) -> None:
        services.cancel(actor_of(request), job)

    def retry(self, request: HttpRequest, job: Job) -> HttpResponse:
        services.check_rights(principal_of(request), job.spec)
        return redirect(self.url("change", services.retry(actor_of(request), job).id))

    def delete(self, request: HttpRequest, job: Job) -> HttpResponse:
        services.delete(actor_of(request), job)
        messages.success(request, f"The job {job.name} is deleted.")
        return redirect(self.url("changelist"))

    # --- forms

    def train(self, request: HttpRequest) -> HttpResponse:
        form = TrainingForm.of(request.POST or None, chosen=request.GET.get("dataset", ""))
        return self._submitted(request, form) or self.form_page(
            request, "console/submit.html", "Submit training job", form
        )

    def tune(self, request: HttpRequest) -> HttpResponse:
        chosen = {name: request.GET.get(name, "") for name in ("base", "dataset")}
        form = TuningForm.of(request.POST or None, **chosen)
        return self._submitted(request, form) or self.form_page(request, "console/tune.html", "Fine-tune a model", form)

    def bring(self, request: HttpRequest) -> HttpResponse:
        """The file goes to the raw route by script; this takes its artefact's id."""
        form = ImportForm(request.POST or None)
        return self._submitted(request, form) or self.form_page(request, "console/import.html", "Bring a model", form)

    def _submitted(self, request: HttpRequest, form: DocumentForm) -> HttpResponse | None:
        def submit(document: dict[str, Any]) -> HttpResponse:
            services.check_rights(principal_of(request), document)
            return redirect(self.url("change", services.submit(actor_of(request), document).id))

        return self.filled(form, submit)


def _sees_models(request: HttpRequest) -> bool:
    return "models:read" in principal_of(request).scopes


def is_cancelling(job: Job) -> bool:
    return job.cancel_requested_at is not None and job.state not in TERMINAL

"""Data sets in the panel: the list of versions, the upload page, the page of a version with its statistics."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from unfold.decorators import display

from strongroom.console.forms.uploads import DatasetForm
from strongroom.console.members import TenantAdmin, actor_of, principal_of
from strongroom.console.templatetags.console import ago, badge, number, size
from strongroom.datasets import services
from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import services as jobs

CLASSES = 200  # of a column drawn as bars
COLUMNS = 300  # in the table of statistics
LABEL_CHARACTERS = 24  # of the widest name of a class; a longer one is cut


class DatasetVersionAdmin(TenantAdmin):
    slug, list_title = "datasets", "Data sets"
    view_scope, change_scope = "datasets:read", "datasets:write"
    adds = {"upload": "Upload data set"}
    object_template, live_template = "console/dataset.html", "console/dataset_live.html"
    verbs = ("delete",)
    list_display = ("shown_name", "shown_state", "shown_rows", "shown_size", "modality", "shown_created")
    list_filter = ("state", "modality", "format")
    list_select_related = ("dataset",)
    search_fields = ("dataset__name",)
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).exclude(state=DatasetVersion.State.DELETED).select_related("dataset")

    @admin.display(description="data set", ordering="dataset__name")
    def shown_name(self, version: DatasetVersion) -> str:
        return str(version)

    @display(description="state")
    def shown_state(self, version: DatasetVersion) -> str:
        return badge(version.state)

    @admin.display(description="rows", ordering="rows")
    def shown_rows(self, version: DatasetVersion) -> str:
        return number(version.rows)

    @admin.display(description="size", ordering="size_bytes")
    def shown_size(self, version: DatasetVersion) -> str:
        return size(version.size_bytes)

    @admin.display(description="uploaded", ordering="id")
    def shown_created(self, version: DatasetVersion) -> str:
        return ago(version.created_at)

    def object_context(self, request: HttpRequest, obj: DatasetVersion) -> dict[str, Any]:
        columns = (obj.profile or {}).get("columns") or []
        may_train = "jobs:write" in principal_of(request).scopes
        is_text = obj.format == "chat-jsonl"
        page = "admin:jobs_job_tune" if is_text else "admin:jobs_job_train"
        return {
            "document": services.document(obj),
            "columns": columns[:COLUMNS],
            "columns_left_out": max(0, len(columns) - COLUMNS),
            "bars": [_bars(column) for column in columns if column.get("classes")],
            "check_job": jobs.jobs().filter(id=obj.check_job_id).first() if obj.check_job_id else None,
            "train_url": f"{reverse(page)}?dataset={obj}" if may_train else None,
            "is_text": is_text,
        }

    def is_moving(self, obj: DatasetVersion) -> bool:
        return obj.state == DatasetVersion.State.CHECKING

    def delete(self, request: HttpRequest, version: DatasetVersion) -> HttpResponse:
        services.delete_version(actor_of(request), version)
        messages.success(request, f"{version} is deleted; its key and its bytes are destroyed.")
        return redirect(self.url("changelist"))

    def upload(self, request: HttpRequest) -> HttpResponse:
        """Only the page: the file goes to the raw route by script, past Django."""
        form = DatasetForm(initial={"name": request.GET.get("name", "")})
        return self.form_page(request, "console/upload.html", "Upload data set", form)

    def own_urls(self) -> list[Any]:
        named = path(
            "named/<slug:name>/<int:number>/", self.admin_site.admin_view(self.named), name=f"{self.names}_named"
        )
        return [named, *super().own_urls()]

    def named(self, request: HttpRequest, name: str, number: int) -> HttpResponse:
        """Where the upload's script goes with what the raw route answered."""
        version = self.get_queryset(request).filter(dataset__name=name, number=number).first()
        return redirect(self.url("changelist") if version is None else self.url("change", version.pk))


def _bars(column: dict[str, Any]) -> dict[str, Any]:
    """The classes with their share of the most frequent one: the width of a bar."""
    classes = column["classes"]
    most = max((entry["rows"] for entry in classes), default=0) or 1
    rows = [(entry["name"], entry["rows"], round(100 * entry["rows"] / most, 1)) for entry in classes[:CLASSES]]
    width = min(LABEL_CHARACTERS, max((len(name) for name, _, _ in rows), default=0) + 2)
    left_out = max(0, len(classes) - CLASSES)
    return {"name": column["name"], "rows": rows, "left_out": left_out, "label_width": width}

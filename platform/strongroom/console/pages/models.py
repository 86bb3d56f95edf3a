"""Model versions in the panel: the list, and what a version is: how good, made of what, served where; of an imported
one also what it says of itself and what was checked."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import display

from strongroom.console import cards
from strongroom.console.members import TenantAdmin, actor_of, principal_of
from strongroom.console.templatetags.console import ago, badge, number, size
from strongroom.datasets import services as datasets
from strongroom.deployments import services as deployments
from strongroom.jobs import services as jobs
from strongroom.registry import services
from strongroom.registry.models import ModelVersion

SHADED = 40  # a confusion matrix up to this many classes is drawn
HEADLINES = ("test/accuracy", "test/r2", "validation/accuracy", "validation/r2", "test/loss", "validation/loss")


class ModelVersionAdmin(TenantAdmin):
    slug, list_title = "models", "Models"
    view_scope, change_scope = "models:read", "models:write"
    object_template = "console/model.html"
    verbs = ("promote", "delete")
    list_display = (
        "shown_name",
        "shown_task",
        "shown_state",
        "shown_stage",
        "shown_score",
        "shown_size",
        "shown_created",
    )
    list_filter = ("state", "stage")
    search_fields = ("model__name",)
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).exclude(state=ModelVersion.State.DELETED).select_related("model")

    @admin.display(description="model", ordering="model__name")
    def shown_name(self, version: ModelVersion) -> str:
        return str(version)

    @admin.display(description="task", ordering="model__task")
    def shown_task(self, version: ModelVersion) -> str:
        return version.model.task

    @display(description="state")
    def shown_state(self, version: ModelVersion) -> str:
        return badge(version.state)

    @display(description="stage")
    def shown_stage(self, version: ModelVersion) -> str:
        return badge(version.stage)

    @admin.display(description="score")
    def shown_score(self, version: ModelVersion) -> str:
        name, value = headline(version.metrics)
        return f"{number(value)} {name}" if name else "–"

    @admin.display(description="size", ordering="size_bytes")
    def shown_size(self, version: ModelVersion) -> str:
        return size(version.size_bytes)

    @admin.display(description="made", ordering="id")
    def shown_created(self, version: ModelVersion) -> str:
        return ago(version.created_at)

    def object_context(self, request: HttpRequest, obj: ModelVersion) -> dict[str, Any]:
        document = services.document(obj)
        scopes = principal_of(request).scopes
        signature = document["signature"] or {}
        evaluation = document["evaluation"] or {}
        job = jobs.jobs().filter(id=obj.job_id).first() if obj.job_id and "jobs:read" in scopes else None
        dataset = self._dataset(obj) if "datasets:read" in scopes else None
        linked = ({"job"} if job else set()) | ({"dataset", "dataset_version"} if dataset else set())
        return {
            "document": document,
            "lineage": [(name, value) for name, value in obj.lineage.items() if name not in linked],
            "job": job,
            "dataset": dataset,
            "metrics": by_part(obj.metrics),
            "card": cards.facts(document["card"]),
            "matrix": shaded(evaluation.get("confusion"), signature.get("classes")),
            "served": list(deployments.live().filter(traffic__version=obj)),
            "deploy_url": self._deploy_url(obj) if "deployments:write" in scopes else None,
            "may_promote": obj.state == ModelVersion.State.READY and obj.stage != ModelVersion.Stage.PRODUCTION,
        }

    def _dataset(self, version: ModelVersion) -> Any:
        name, number_ = version.lineage.get("dataset"), version.lineage.get("dataset_version")
        return datasets.versions().filter(dataset__name=name, number=number_).first() if name else None

    def _deploy_url(self, version: ModelVersion) -> str | None:
        if version.state != ModelVersion.State.READY:
            return None
        return f"{reverse('admin:deployments_deployment_deploy')}?version={version}"

    def promote(self, request: HttpRequest, version: ModelVersion) -> None:
        services.set_stage(actor_of(request), version, ModelVersion.Stage.PRODUCTION)
        messages.success(request, f"{version} is in production; the version before it is archived.")

    def delete(self, request: HttpRequest, version: ModelVersion) -> HttpResponse:
        services.delete_version(actor_of(request), version)
        messages.success(request, f"{version} is deleted; its key and its bytes are destroyed.")
        return redirect(self.url("changelist"))


def headline(metrics: dict[str, float]) -> tuple[str, float | None]:
    """The one figure that says how good it is."""
    return next(((name, metrics[name]) for name in HEADLINES if name in metrics), ("", None))


def by_part(metrics: dict[str, float]) -> list[tuple[str, list[tuple[str, float]]]]:
    """[("test", [("accuracy", 0.97), …]), …], what counts first."""
    parts: dict[str, list[tuple[str, float]]] = {}
    for name, value in sorted(metrics.items()):
        part, _, metric = name.partition("/")
        parts.setdefault(part, []).append((metric or part, value))
    order = ("test", "validation", "train")
    return sorted(parts.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def shaded(confusion: list[list[int]] | None, classes: list[str] | None) -> dict[str, Any] | None:
    """Rows with (count, shade 0–10, on the diagonal); a cell's shade is its share of its row."""
    if not confusion or len(confusion) > SHADED:
        return None
    names = classes or [str(index) for index in range(len(confusion))]
    rows = [
        (names[true], [(count, round(10 * count / (sum(row) or 1)), true == found) for found, count in enumerate(row)])
        for true, row in enumerate(confusion)
    ]
    return {"classes": names, "rows": rows}

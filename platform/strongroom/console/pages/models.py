"""Model versions in the panel: the list, and what a version is: how good, made of what, served where; of an imported
or tuned one also what it says of itself and what was checked; and an adapter asked beside its base."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from unfold.decorators import display

from strongroom.console import cards
from strongroom.console.forms import tuning
from strongroom.console.forms.playground import ChatForm
from strongroom.console.members import TenantAdmin, actor_of, principal_of
from strongroom.console.templatetags.console import ago, badge, number, size
from strongroom.datasets import services as datasets
from strongroom.deployments import services as deployments
from strongroom.deployments.models import Deployment
from strongroom.jobs import services as jobs
from strongroom.registry import services
from strongroom.registry.models import ModelVersion

ADAPTERS = 500  # to choose from: the newest
SHADED = 40  # a confusion matrix up to this many classes is drawn
HEADLINES = (
    *("test/accuracy", "test/r2", "validation/accuracy", "validation/r2"),
    *("test/loss", "validation/perplexity", "validation/loss"),
)


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
            "base": obj.base,
            "before": cards.before(document["card"]),
            "matrix": shaded(evaluation.get("confusion"), signature.get("classes")),
            "served": list(deployments.live().filter(traffic__version=obj)),
            "deploy_url": deploy_url(obj) if "deployments:write" in scopes else None,
            "compare_url": f"{self.url('compare')}?version={obj}" if is_adapter(obj) and "predict" in scopes else None,
            "tune_url": tune_url(obj) if "jobs:write" in scopes else None,
            "may_promote": obj.state == ModelVersion.State.READY and obj.stage != ModelVersion.Stage.PRODUCTION,
        }

    def _dataset(self, version: ModelVersion) -> Any:
        name, number_ = version.lineage.get("dataset"), version.lineage.get("dataset_version")
        return datasets.versions().filter(dataset__name=name, number=number_).first() if name else None

    # --- an adapter beside its base

    def own_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [path("compare/", view(self.compare), name=f"{self.names}_compare"), *super().own_urls()]

    def compare(self, request: HttpRequest) -> HttpResponse:
        """One prompt, two answers. Without an adapter of this tenant's in the address, the list of them."""
        scopes = principal_of(request).scopes
        if not {self.view_scope, "deployments:read", "predict"} <= scopes:
            raise PermissionDenied
        adapters = list(self._adapters(request)[:ADAPTERS])
        chosen = request.GET.get("version")
        version = next((adapter for adapter in adapters if str(adapter) == chosen), None)
        sides = [] if version is None else [Side.of(each, scopes) for each in (version.base, version) if each]
        shown: dict[str, Any] = {"adapters": adapters, "version": version, "sides": sides}
        shown["settings"] = ChatForm(chats=True, exact=True)
        return self.page(request, "console/compare.html", "Tuned beside its base", **shown)

    def _adapters(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows = self.get_queryset(request).filter(base__isnull=False, state=ModelVersion.State.READY)
        return rows.select_related("model", "base__model").order_by("-id")

    # --- buttons

    def promote(self, request: HttpRequest, version: ModelVersion) -> None:
        services.set_stage(actor_of(request), version, ModelVersion.Stage.PRODUCTION)
        messages.success(request, f"{version} is in production; the version before it is archived.")

    def delete(self, request: HttpRequest, version: ModelVersion) -> HttpResponse:
        services.delete_version(actor_of(request), version)
        messages.success(request, f"{version} is deleted; its key and its bytes are destroyed.")
        return redirect(self.url("changelist"))


@dataclass(frozen=True, slots=True)
class Side:
    """One of two versions that are asked alike, and what serves it."""

    version: ModelVersion
    deployment: Deployment | None
    deploy_url: str | None

    @classmethod
    def of(cls, version: ModelVersion, scopes: Collection[str]) -> Side:
        """Of several deployments the newest that is ready."""
        rows = deployments.live().filter(traffic__version=version).order_by("-id")
        found = rows.filter(state=Deployment.State.READY).first() or rows.first()
        return cls(version, found, deploy_url(version) if "deployments:write" in scopes else None)


def is_adapter(version: ModelVersion) -> bool:
    return version.base_id is not None and version.state == ModelVersion.State.READY


def deploy_url(version: ModelVersion) -> str | None:
    if version.state != ModelVersion.State.READY:
        return None
    return f"{reverse('admin:deployments_deployment_deploy')}?version={version}"


def tune_url(version: ModelVersion) -> str | None:
    return f"{reverse('admin:jobs_job_tune')}?base={version}" if tuning.is_tunable(version) else None


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

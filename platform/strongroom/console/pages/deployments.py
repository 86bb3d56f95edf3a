"""Deployments in the panel: the list, what is served and how, and the box in which one tries it."""

from __future__ import annotations

import json
from math import prod
from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import display

from strongroom.console import cards
from strongroom.console.forms.deployments import DeployForm, SwitchForm
from strongroom.console.forms.playground import ChatForm
from strongroom.console.members import TenantAdmin, actor_of, principal_of
from strongroom.console.templatetags.console import ago, badge
from strongroom.deployments import services
from strongroom.deployments.models import Deployment
from strongroom.errors import NotFound
from strongroom.registry.models import ModelVersion

State = Deployment.State
MOVING = (State.LOADING, State.DRAINING)
TEMPLATES: dict[cards.Takes, str] = {
    "arrays": "console/deployment_arrays.html",
    "words": "console/deployment_words.html",
    "texts": "console/deployment_texts.html",
}
SMALL = 256  # values of an input that an example spells out


class DeploymentAdmin(TenantAdmin):
    slug, list_title = "deployments", "Deployments"
    view_scope, change_scope = "deployments:read", "deployments:write"
    adds = {"deploy": "Deploy a model"}
    object_template, live_template = TEMPLATES["arrays"], "console/deployment_live.html"
    verbs = ("switch", "stop")
    list_display = ("name", "shown_state", "shown_version", "device", "shown_created")
    list_filter = ("state",)
    search_fields = ("name",)
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("traffic__version__model")

    @display(description="state")
    def shown_state(self, row: Deployment) -> str:
        return badge(row.state)

    @admin.display(description="serves")
    def shown_version(self, row: Deployment) -> str:
        return ", ".join(str(traffic.version) for traffic in row.traffic.all()) or "–"

    @admin.display(description="made", ordering="id")
    def shown_created(self, row: Deployment) -> str:
        return ago(row.created_at)

    def object_context(self, request: HttpRequest, obj: Deployment) -> dict[str, Any]:
        traffic = obj.traffic.select_related("version__model").first()
        version = None if traffic is None else traffic.version
        live = obj.state in services.LIVE
        return {
            "document": services.document(obj),
            "version": version,
            "live": live,
            "form": SwitchForm.of(None, obj) if live and self.may_change(request) else None,
            "may_predict": live and "predict" in principal_of(request).scopes,
            "origin": f"{request.scheme}://{request.get_host()}",
            **asked_by(version),
        }

    def object_page(self, request: HttpRequest, obj: Deployment, status: int = 200, **context: Any) -> TemplateResponse:
        """With the box that fits what the version takes."""
        shown = self.object_context(request, obj) | context
        return self.page(request, TEMPLATES[shown["takes"]], str(obj), status, object=obj, **shown)

    def is_moving(self, obj: Deployment) -> bool:
        return obj.state in MOVING

    def deploy(self, request: HttpRequest) -> HttpResponse:
        chosen = request.GET.get("version", "")
        form = DeployForm(request.POST or None, initial={"version": chosen, "name": chosen.partition("@")[0]})

        def make(document: dict[str, Any]) -> HttpResponse:
            return redirect(self.url("change", services.deploy(actor_of(request), document).id))

        return self.filled(form, make) or self.form_page(request, "console/deploy.html", "Deploy a model", form)

    def switch(self, request: HttpRequest, row: Deployment) -> HttpResponse:
        check_lives(row)
        form = SwitchForm.of(request.POST, row)

        def change(document: dict[str, Any]) -> HttpResponse:
            services.switch(actor_of(request), row.name, document)
            messages.success(request, f"{row.name} is changed; what was served goes on until the new one is loaded.")
            return redirect(self.url("change", row.id))

        return self.filled(form, change) or self.object_page(request, row, 422, form=form)

    def stop(self, request: HttpRequest, row: Deployment) -> None:
        check_lives(row)
        services.stop(actor_of(request), row.name)


def check_lives(row: Deployment) -> None:
    """Its name may be another deployment's by now, which the page that was sent does not show. NotFound."""
    if row.state not in services.LIVE:
        raise NotFound("this deployment was stopped")


def asked_by(version: ModelVersion | None) -> dict[str, Any]:
    """What the page says of how the version is asked."""
    takes = cards.takes(version)
    if takes == "arrays" or version is None:
        return {"takes": takes, "input": kind_of_input(version), "example": example_of(version)}
    chats = bool((version.signature or {}).get("chat"))
    compare = reverse("admin:registry_modelversion_compare") if takes == "words" and version.base_id else None
    return {
        "takes": takes,
        "chats": chats,
        "settings": ChatForm(chats=chats) if takes == "words" else None,
        "compare_url": f"{compare}?version={version}" if compare else None,
    }


def inputs_of(version: ModelVersion | None) -> list[dict[str, Any]]:
    return list(((version.signature if version else None) or {}).get("inputs") or [])


def example_of(version: ModelVersion | None) -> str:
    """A body that fits: rows by column, or the smallest arrays."""
    inputs = inputs_of(version)
    if kind_of_input(version) == "table":
        return json.dumps({"rows": [{entry["name"]: "" if entry["datatype"] == "BYTES" else 0 for entry in inputs}]})
    small = all(prod(max(1, side) for side in entry["shape"][1:]) <= SMALL for entry in inputs)
    return json.dumps({"inputs": {entry["name"]: zeros([1, *entry["shape"][1:]]) if small else [] for entry in inputs}})


def zeros(shape: list[int]) -> Any:
    return 0 if not shape else [zeros(shape[1:]) for _ in range(max(1, shape[0]))]


def kind_of_input(version: ModelVersion | None) -> str:
    """What the try-it box takes: `image` (a file), `table` (rows by column), or `arrays`."""
    inputs = inputs_of(version)
    if len(inputs) == 1 and inputs[0]["datatype"] == "UINT8" and len(inputs[0]["shape"]) == 4:
        return "image"
    return (
        "table" if inputs and all(len(entry["shape"]) == 2 and entry["shape"][1] == 1 for entry in inputs) else "arrays"
    )

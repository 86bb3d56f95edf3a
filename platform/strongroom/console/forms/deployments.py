"""The forms that make a deployment and that change one: REST's own bodies, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strongroom.console.forms.document import DocumentForm, choice, flag, text, whole
from strongroom.console.forms.jobs import without_empty
from strongroom.deployments import services
from strongroom.deployments.api import NewDeployment, SwitchBody
from strongroom.deployments.models import Deployment
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion

CHOICES = 500
LIMITS, POLICY = services.LIMITS, services.POLICY


class ServingForm(DocumentForm):
    """What making and changing have in common. `initial` holds what counts now."""

    version = choice("Model version", [])
    concurrency = whole("Requests at once", initial=LIMITS["concurrency"], help="More answer 429.")
    deadline_ms = whole("Deadline in ms", initial=LIMITS["deadline_ms"], help="Later answers are 503.")
    requests_per_second = whole("Requests a second", help="Empty: no limit.")
    max_batch = whole("Largest batch", initial=64, help="What waits while the model computes goes together.")
    top_k = whole("Classes shown", help="The best ones; empty: all.")
    decimals = whole("Decimals shown", help="Fewer tell less about the model; empty: all.")
    scores = flag("Show every class's score", initial=True)

    wide = frozenset({"version"})
    pointers = {
        "/name": "name",
        "/versions": "version",
        "/limits/concurrency": "concurrency",
        "/limits/deadline_ms": "deadline_ms",
        "/limits/requests_per_second": "requests_per_second",
        "/batching/max_batch": "max_batch",
        "/output_policy/top_k": "top_k",
        "/output_policy/decimals": "decimals",
        "/output_policy/scores": "scores",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: Any = self.fields
        fields["version"].choices = [(str(version), _described(version)) for version in ready_versions()]

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        model, _, number = (given.get("version") or "").partition("@")
        nullable = {key: given.get(key) for key in ("top_k", "decimals")}
        return {
            "versions": [{"model": model, "version": int(number)}] if number.isdigit() else [],
            "limits": {
                **without_empty({key: given.get(key) for key in ("concurrency", "deadline_ms")}),
                "requests_per_second": given.get("requests_per_second"),
            },
            "batching": without_empty({"max_batch": given.get("max_batch")}),
            "output_policy": {**nullable, "scores": bool(given.get("scores"))},
        }


class DeployForm(ServingForm):
    """POST /deployments"""

    name = text("Name", placeholder="digits", help="Callers predict at /api/v1/deployments/NAME/predict.")
    field_order = ["name", "version"]
    groups = (
        ("What is served", ("name", "version")),
        ("Limits", ("requests_per_second", "concurrency", "deadline_ms", "max_batch")),
        ("What callers see", ("top_k", "decimals", "scores")),
    )

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": given.get("name") or "", **super().build(given)}

    def check(self, document: dict[str, Any]) -> None:
        self.document = NewDeployment.read(document)


class SwitchForm(ServingForm):
    """PATCH /deployments/{name}"""

    groups = (
        ("What is served", ("version",)),
        ("Limits", ("requests_per_second", "concurrency", "deadline_ms", "max_batch")),
        ("What callers see", ("top_k", "decimals", "scores")),
    )

    @classmethod
    def of(cls, data: Any, row: Deployment) -> SwitchForm:
        document = services.document(row)
        served = document["versions"]
        now = {"version": f"{served[0]['model']}@{served[0]['version']}"} if served else {}
        return cls(data, initial=now | document["limits"] | document["batching"] | document["output_policy"])

    def check(self, document: dict[str, Any]) -> None:
        self.document = SwitchBody.read(document)


def ready_versions() -> list[ModelVersion]:
    rows = registry.versions().filter(state=ModelVersion.State.READY).order_by("-created_at")
    return list(rows.defer("evaluation", "signature", "reasons")[:CHOICES])


def _described(version: ModelVersion) -> str:
    return f"{version} · {version.model.task}, {version.stage}"

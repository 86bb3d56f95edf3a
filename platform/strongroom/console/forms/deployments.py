"""The forms that make a deployment and that change one: REST's own bodies, drawn.

What a field means depends on the version: a language model has pages of context and no classes. The page shows what
belongs to the chosen one; the rest is sent as it usually is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strongroom.console.forms.document import DocumentForm, choice, flag, text, whole
from strongroom.console.forms.kinds import KindSelect
from strongroom.console.templatetags.console import size
from strongroom.deployments import services
from strongroom.deployments.api import NewDeployment, SwitchBody
from strongroom.deployments.models import Deployment
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion

CHOICES = 500
LIMITS, LANGUAGE_LIMITS, POLICY = services.LIMITS, services.LANGUAGE_LIMITS, services.POLICY
MAX_BATCH: int = Deployment._meta.get_field("max_batch").default
LATER = (
    f"Later answers are 503. Empty: {LIMITS['deadline_ms']:,}, of a language model {LANGUAGE_LIMITS['deadline_ms']:,}."
)


class ServingForm(DocumentForm):
    """What making and changing have in common. `initial` holds what counts now."""

    version = choice("Model version", [])
    concurrency = whole(
        "Requests at once", initial=LIMITS["concurrency"], help=f"More answer 429. Empty: {LIMITS['concurrency']}."
    )
    deadline_ms = whole("Deadline in ms", help=LATER)
    requests_per_second = whole("Requests a second", help="Empty: no limit.")
    context_tokens = whole(
        "Context tokens", help="Prompts and answers of all that run at once. Empty: as many as the model looks back on."
    )
    share = flag("Shared pages", help="Cells map one read-only copy of the weights: less memory, slower.")
    max_batch = whole(
        "Largest batch",
        initial=MAX_BATCH,
        help=f"What waits while the model computes goes together. Empty: {MAX_BATCH}.",
    )
    top_k = whole("Classes shown", help="The best ones; empty: all.")
    decimals = whole("Decimals shown", help="Fewer tell less about the model; empty: all.")
    scores = flag("Show every class's score", initial=True)

    wide = frozenset({"version"})
    groups: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("What is served", ("version",)),
        ("Limits", ("requests_per_second", "concurrency", "deadline_ms", "max_batch", "context_tokens", "share")),
        ("What callers see", ("top_k", "decimals", "scores")),
    )
    pointers = {
        "/name": "name",
        "/versions": "version",
        "/limits/concurrency": "concurrency",
        "/limits/deadline_ms": "deadline_ms",
        "/limits/requests_per_second": "requests_per_second",
        "/context_tokens": "context_tokens",
        "/share": "share",
        "/batching/max_batch": "max_batch",
        "/output_policy/top_k": "top_k",
        "/output_policy/decimals": "decimals",
        "/output_policy/scores": "scores",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        wanted = self.initial.get("version") or ""
        versions = ready_versions(wanted)
        self.kinds = {str(version): kind_of(version) for version in versions}
        fields: Any = self.fields
        fields["version"].widget = KindSelect(self.kinds)
        none = [("", "choose a version")] if wanted and wanted not in self.kinds else []  # never another in its place
        fields["version"].choices = none + [(str(version), _described(version)) for version in versions]

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        chosen = given.get("version") or ""
        model, _, number = chosen.partition("@")
        limits = {key: given.get(key) for key in ("concurrency", "deadline_ms", "requests_per_second")}
        own = self._of_words(given) if self.kinds.get(chosen) == "language" else self._of_arrays(given)
        return {
            "versions": [{"model": model, "version": int(number)}] if number.isdigit() else [],
            "limits": limits,
            **own,
        }

    def _of_words(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "context_tokens": given.get("context_tokens"),
            "share": bool(given.get("share")),
            "output_policy": POLICY,
        }

    def _of_arrays(self, given: Mapping[str, Any]) -> dict[str, Any]:
        nullable = {key: given.get(key) for key in ("top_k", "decimals")}
        return {
            "batching": {"max_batch": MAX_BATCH if given.get("max_batch") is None else given["max_batch"]},
            "output_policy": {**nullable, "scores": bool(given.get("scores"))},
            "context_tokens": None,
            "share": False,
        }


class DeployForm(ServingForm):
    """POST /deployments"""

    name = text(
        "Name",
        placeholder="digits",
        help="Callers predict at /api/v1/deployments/NAME/predict; to /v1/chat/completions it is the model.",
    )
    field_order = ["name", "version"]
    groups = (("What is served", ("name", "version")), *ServingForm.groups[1:])

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": given.get("name") or "", **super().build(given)}

    def check(self, document: dict[str, Any]) -> None:
        self.document = NewDeployment.read(document)


class SwitchForm(ServingForm):
    """PATCH /deployments/{name}"""

    @classmethod
    def of(cls, data: Any, row: Deployment) -> SwitchForm:
        document = services.document(row)
        served = document["versions"]
        now = {"version": f"{served[0]['model']}@{served[0]['version']}"} if served else {}
        now |= {key: document[key] for key in ("context_tokens", "share")}
        return cls(data, initial=now | row.limits | document["batching"] | document["output_policy"])

    def check(self, document: dict[str, Any]) -> None:
        self.document = SwitchBody.read(document)


def ready_versions(also: str) -> list[ModelVersion]:
    """The newest, and one that may be older."""
    ready = (
        registry.versions().filter(state=ModelVersion.State.READY).defer("evaluation", "signature", "card", "reasons")
    )
    found = list(ready.order_by("-created_at")[:CHOICES])
    name, _, number = also.partition("@")
    if number.isdecimal() and len(number) < 10 and also not in map(str, found):
        found += ready.filter(model__name=name, number=int(number))
    return found


def kind_of(version: ModelVersion) -> str:
    return "language" if version.format in services.LANGUAGE_FORMATS else "arrays"


def _described(version: ModelVersion) -> str:
    what = "language model" if kind_of(version) == "language" else version.model.task
    return f"{version} · {what}, {size(version.size_bytes)}, {version.stage}"

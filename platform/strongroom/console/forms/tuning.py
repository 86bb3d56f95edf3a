"""The form that submits a fine-tuning: a language model, conversations that it learns from, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from strongroom.console.forms.document import choice, number, text, whole, without_empty
from strongroom.console.forms.spec import CHOICES, SpecForm, advanced, laid_over, ready_versions
from strongroom.datasets.models import DatasetVersion
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion

METHODS = [
    ("", "what fits the data set"),
    ("supervised", "supervised: say what the assistant says"),
    ("dpo", "DPO: tell the better answer from the worse"),
]
PREFERRED = "preferred_output"  # the column that pairs of answers have


class TuningForm(SpecForm):
    """The common fields of `kind: finetune`."""

    base = choice("Base", [], help="The language model that learns. It stays as it is: what is learned is an adapter.")
    dataset = choice("Data set", [], help="JSON Lines of conversations, or of pairs of answers.")
    name = text("Name", help="Lower-case letters, digits and dashes.", placeholder="support-tone")

    method = choice("Method", METHODS, required=False)
    beta = number("Beta", help="How near to the base it stays; empty: 0.1.")
    epochs = whole("Epochs", initial=3)
    batch_size = whole("Batch size", initial=8)
    lr = number("Learning rate", help="Empty: 0.001, with DPO 0.0002.")

    rank = whole("Rank", initial=8, help="Larger: it can learn more, and takes more memory.")
    alpha = number("Alpha", initial=16, help="The adapter counts alpha ÷ rank times.")
    max_tokens = whole("Longest conversation", help="In tokens; a longer one is refused. Empty: the base's context.")

    validation_part = number("Validation part", initial=0.1, help="Not learned: what it is measured and proved on.")
    seed = whole("Seed", initial=0, help="The same seed, data and spec give the same adapter.")

    register_as = text("Register as", required=False, help="The model's name; empty: the job's name.")
    deploy_to = text("Deploy to", required=False, help="A deployment that is made, or switched to the new version.")

    advanced = advanced('{"train": {"accumulate": 2, "precision": "bf16"}, "resources": {"threads": 2}}')

    groups = (
        ("What to learn", ("base", "dataset", "name", "method", "beta")),
        ("How", ("epochs", "batch_size", "lr", "rank", "alpha", "max_tokens")),
        ("How to judge", ("validation_part", "seed")),
        ("And then", ("register_as", "deploy_to")),
    )
    wide = frozenset({"base", "dataset"})
    pointers = {
        "/base": "base",
        "/dataset": "dataset",
        "/name": "name",
        "/method": "method",
        "/method/beta": "beta",
        "/train/epochs": "epochs",
        "/train/batch_size": "batch_size",
        "/train/lr": "lr",
        "/train/max_tokens": "max_tokens",
        "/train/seed": "seed",
        "/lora/rank": "rank",
        "/lora/alpha": "alpha",
        "/split/fractions": "validation_part",
        "/split/seed": "seed",
        "/register/model": "register_as",
        "/register/deploy": "deploy_to",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bases = {str(version): version for version in tunable()}
        self.versions = {str(version): version for version in ready_versions().filter(modality="text")[:CHOICES]}
        fields: Any = self.fields
        fields["base"].choices = [(name, _described(version)) for name, version in self.bases.items()]
        fields["dataset"].choices = [(name, _examples(version)) for name, version in self.versions.items()]

    @classmethod
    def of(cls, data: Any, *, base: str, dataset: str) -> TuningForm:
        """With the chosen ones, or the newest where none is chosen."""
        form = cls(data)
        learned = form._chosen("dataset", form.versions, dataset)
        chosen = form._chosen("base", form.bases, base)
        form.initial = {"base": chosen, "dataset": learned, "name": learned.partition("@")[0]}
        return form

    def _chosen(self, field: str, known: Iterable[str], wanted: str) -> str:
        """Never another in its place: where it is not among the newest, none is chosen yet."""
        if not wanted:
            return next(iter(known), "")
        if wanted in known:
            return wanted
        place: Any = self.fields[field]
        place.choices = [("", "choose one"), *place.choices]
        return ""

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        version = self.versions.get(given.get("dataset", ""))
        method = given.get("method") or _fitting(version)
        seed, part = given.get("seed"), given.get("validation_part")
        document = {
            "kind": "finetune",
            "name": given.get("name"),
            "base": given.get("base"),
            "dataset": {"name": version.dataset.name, "version": version.number} if version else None,
            "split": {"fractions": None if part is None else [round(1 - part, 12), part], "seed": seed},
            "method": {"name": method, "beta": given.get("beta") if method == "dpo" else None},
            "lora": {"rank": given.get("rank"), "alpha": given.get("alpha")},
            "train": {**{key: given.get(key) for key in ("epochs", "batch_size", "lr", "max_tokens")}, "seed": seed},
            "register": {"model": given.get("register_as"), "deploy": given.get("deploy_to")},
        }
        return laid_over(without_empty(document), given.get("advanced") or {})


def tunable() -> list[ModelVersion]:
    """Language models of this tenant's own that chat, the newest first; an adapter is none."""
    rows = registry.versions().filter(state=ModelVersion.State.READY, format="gguf").order_by("-created_at")
    return [version for version in rows.defer("evaluation", "reasons")[:CHOICES] if is_tunable(version)]


def is_tunable(version: ModelVersion) -> bool:
    is_own_language = version.format == "gguf" and version.artefact_id is not None
    is_ready = version.state == ModelVersion.State.READY
    return is_own_language and is_ready and bool((version.signature or {}).get("chat"))


def _fitting(version: DatasetVersion | None) -> str:
    return "dpo" if version is not None and _is_pairs(version) else "supervised"


def _is_pairs(version: DatasetVersion) -> bool:
    return PREFERRED in [column["name"] for column in (version.profile or {}).get("columns") or ()]


def _described(version: ModelVersion) -> str:
    said = version.card or {}
    kind = said.get("type")
    return f"{version} · {version.parameters or 0:,} parameters" + (f", {kind}" if isinstance(kind, str) else "")


def _examples(version: DatasetVersion) -> str:
    what = "pairs of answers" if _is_pairs(version) else "conversations"
    return f"{version} · {version.rows or 0:,} {what}"

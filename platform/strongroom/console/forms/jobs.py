"""Two forms that submit a job: a training, and the import of an uploaded model. Both build a job spec. (The third, a
fine-tuning's, is in tuning.py.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from strongroom.console.forms.document import DocumentForm, choice, long_text, number, text, whole, without_empty
from strongroom.console.forms.spec import CHOICES, SpecForm, advanced, laid_over, ready_versions
from strongroom.datasets.models import DatasetVersion
from strongroom.errors import FieldError, Invalid
from strongroom.jobs import services as jobs

TASKS = [("classification", "classification"), ("regression", "regression")]
MODELS = [
    ("lenet", "lenet: small convolutional network, for images"),
    ("mlp", "mlp: fully connected, for tables and images"),
    ("linear", "linear: one layer, the honest baseline"),
]
IMPORT_TASKS = [
    *TASKS,
    ("generation", "generation: text goes on"),
    ("embedding", "embedding: a vector"),
    ("other", "other: outputs as they are"),
]
FILES = [
    ("", "by the file's name"),
    ("onnx", "ONNX: one file"),
    ("onnx-zip", "ZIP: ONNX and its weights beside"),
    ("gguf", "GGUF: a language model"),
    ("safetensors-zip", "ZIP: a folder of safetensors"),
]
WEIGHTS = [("keep", "keep: as they came"), ("q4_0", "q4_0: small and fast"), ("bf16", "bf16: faithful")]
LOSSES = [("auto", "what fits the task"), ("cross_entropy", "cross-entropy"), ("mse", "mean squared error")]
OPTIMIZERS = [("sgd", "SGD"), ("adamw", "AdamW")]
SPLITS = [("stratified", "stratified"), ("random", "random")]


class TrainingForm(SpecForm):
    """The common fields of `kind: train`."""

    name = text("Name", help="Lower-case letters, digits and dashes.", placeholder="lenet-digits")
    dataset = choice("Data set", [])
    target = text("Target column", required=False, help="Empty: the data set's own.")
    task = choice("Task", TASKS)

    model = choice("Model", MODELS)
    loss = choice("Loss", LOSSES)

    optimizer = choice("Optimizer", OPTIMIZERS)
    lr = number("Learning rate", initial=0.001)
    momentum = number("Momentum", initial=0.9)
    epochs = whole("Epochs", initial=25)
    batch_size = whole("Batch size", initial=4)

    split = choice("Split", SPLITS, help="Stratified keeps the classes' proportions.")
    train_part = number("Training part", initial=0.7)
    validation_part = number("Validation part", initial=0.15)
    test_part = number("Test part", initial=0.15)
    seed = whole("Seed", help="The same seed, data and spec give the same weights.", initial=0)

    register_as = text("Register as", required=False, help="The model's name; empty: the job's name.")
    deploy_to = text("Deploy to", required=False, help="A deployment that is made, or switched to the new version.")

    advanced = advanced('{"train": {"early_stop": {"metric": "validation/loss"}}, "resources": {"threads": 2}}')

    groups = (
        ("What to learn", ("dataset", "name", "task", "target")),
        ("With what", ("model", "loss", "optimizer", "lr", "momentum", "epochs", "batch_size")),
        ("How to judge", ("split", "seed", "train_part", "validation_part", "test_part")),
        ("And then", ("register_as", "deploy_to")),
    )
    wide = frozenset({"dataset", "model"})
    pointers = {
        "/name": "name",
        "/dataset": "dataset",
        "/target": "target",
        "/task": "task",
        "/model/name": "model",
        "/model/kind": "model",
        "/train/loss": "loss",
        "/train/optimizer": "optimizer",
        "/train/optimizer/name": "optimizer",
        "/train/optimizer/lr": "lr",
        "/train/optimizer/momentum": "momentum",
        "/train/epochs": "epochs",
        "/train/batch_size": "batch_size",
        "/train/seed": "seed",
        "/split/method": "split",
        "/split/fractions": "train_part",
        "/split/fractions/0": "train_part",
        "/split/fractions/1": "validation_part",
        "/split/fractions/2": "test_part",
        "/split/seed": "seed",
        "/register/model": "register_as",
        "/register/deploy": "deploy_to",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.versions = {str(version): version for version in ready_versions().exclude(modality="text")[:CHOICES]}
        fields: Any = self.fields
        fields["dataset"].choices = [(name, _described(version)) for name, version in self.versions.items()]

    @classmethod
    def of(cls, data: Any, chosen: str) -> TrainingForm:
        """With what fits the chosen data set, or the newest, as a beginning."""
        form = cls(data)
        version = form.versions.get(chosen) or next(iter(form.versions.values()), None)
        if version is not None:
            form.initial = suggested(version)
        return form

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        version = self.versions.get(given.get("dataset", ""))
        seed = given.get("seed")
        parts = [given.get(part) for part in ("train_part", "validation_part", "test_part")]
        document = {
            "kind": "train",
            "name": given.get("name"),
            "task": given.get("task"),
            "target": given.get("target") or (version.target if version else None),
            "dataset": {"name": version.dataset.name, "version": version.number} if version else None,
            "model": {"kind": "catalogue", "name": given.get("model")},
            "split": {"method": given.get("split"), "fractions": None if None in parts else parts, "seed": seed},
            "train": {
                "loss": {"name": given.get("loss")},
                "optimizer": {key: given.get(field) for key, field in OPTIMIZER_FIELDS.items()},
                "epochs": given.get("epochs"),
                "batch_size": given.get("batch_size"),
                "seed": seed,
            },
            "register": {"model": given.get("register_as"), "deploy": given.get("deploy_to")},
        }
        return laid_over(without_empty(document), given.get("advanced") or {})


OPTIMIZER_FIELDS = {"name": "optimizer", "lr": "lr", "momentum": "momentum"}


class ImportForm(DocumentForm):
    """What an uploaded model is; its artefact's id is set by the script that sent it, which also reads the format."""

    model = text("Name", help="The model that it becomes a version of.", placeholder="resnet-cats")
    format = choice("File", FILES, required=False)
    task = choice("Task", IMPORT_TASKS)
    weights = choice("Weights", WEIGHTS, required=False, help="Written anew where they are not kept.")
    classes = long_text(
        "Classes", rows=4, help="For a classification: their names in the order of the output, a line each."
    )
    artefact = forms.CharField(required=False, widget=forms.HiddenInput)

    pointers = {
        "/name": "model",
        "/model": "model",
        "/register/model": "model",
        "/task": "task",
        "/weights": "weights",
        "/classes": "classes",
        "/artefact": "artefact",
    }

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Weights belong to a generation, classes to a classification: elsewhere they were not shown."""
        task = given.get("task")
        names = [line.strip() for line in (given.get("classes") or "").splitlines() if line.strip()]
        document = {
            "kind": "import",
            "name": given.get("model"),
            "model": given.get("model"),
            "task": task,
            "artefact": given.get("artefact"),
            "weights": given.get("weights") if task == "generation" else None,
            "classes": names if task == "classification" else None,
        }
        return without_empty(document)

    def check(self, document: dict[str, Any]) -> None:
        if "artefact" not in document:
            raise Invalid.all(
                [FieldError("/artefact", "missing", "choose the ONNX file, GGUF file or zip; it is sent on submit")]
            )
        jobs.validate(document)


def suggested(version: DatasetVersion) -> dict[str, Any]:
    """Beginnings that fit a data set."""
    columns = {column["name"]: column for column in (version.profile or {}).get("columns") or ()}
    classes = (columns.get(version.target) or {}).get("classes")
    image = version.modality == "image"
    return {
        "name": version.dataset.name,
        "dataset": str(version),
        "task": "classification" if classes else "regression",
        "model": "lenet" if image else "mlp",
        "optimizer": "sgd" if image else "adamw",
        "momentum": 0.9 if image else 0.0,
        "batch_size": 4 if image else 32,
        "split": "stratified",
    }


def _described(version: DatasetVersion) -> str:
    return f"{version} · {version.modality}, {version.rows or 0:,} rows, target {version.target}"

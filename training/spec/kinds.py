"""One document per kind of job: train, finetune and import are submitted, the others are the platform's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.spec.data import DatasetReference, Name, Section, Split
from training.spec.finetune import FinetuneSpec
from training.spec.model import Model
from training.spec.problems import Planned
from training.spec.resources import Register, Resources
from training.spec.train import Export, Train

Api = Literal["strongroom/v1"]
Text = Annotated[str, Field(min_length=1, max_length=256)]
BatchEndpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]


class TrainSpec(Section):
    """Learn from a data set and register what was learned."""

    planned = ("preprocess", "privacy", "optimize", "evaluate", "search", "costs")

    kind: Literal["train"] = "train"
    api: Api = "strongroom/v1"
    name: Name
    task: Annotated[
        Literal["classification", "regression"], Planned("multilabel", "forecast", "embedding", "generation")
    ]
    modality: Annotated[Literal["auto", "tabular", "image"], Planned("text", "audio")] = "auto"
    target: Text = "label"
    dataset: DatasetReference
    split: Split = Split()
    model: Model
    train: Train = Train()
    export: Export = Export()
    resources: Resources = Resources()
    register_: Register = Field(default=Register(), alias="register")  # every class has a `register`: ABCMeta's

    def filled(self) -> TrainSpec:
        """Every default that depends on another field, written out: the stored spec alone repeats the run."""
        choices = {"classification": "cross_entropy", "regression": "mse"}
        loss = self.train.loss
        if loss.name == "auto":
            loss = loss.model_copy(update={"name": choices[self.task]})
        update = {
            "train": self.train.model_copy(update={"loss": loss}),
            "model": self.model.filled(),
            "register_": self.register_.model_copy(update={"model": self.register_.model or self.name}),
        }
        return self.model_copy(update=update)


class ImportSpec(Section):
    """Take in a model that was uploaded. `weights`: of a language model, as they came, smaller and faster (q4_0), or
    faithful (bf16)."""

    kind: Literal["import"]
    api: Api = "strongroom/v1"
    name: Name
    artefact: Annotated[str, Field(pattern=r"^art_[0-9a-hjkmnp-tv-z]{26}$")]
    model: Name
    task: Annotated[
        Literal["classification", "regression", "embedding", "generation", "other"], Planned("multilabel", "forecast")
    ]
    weights: Literal["keep", "q4_0", "bf16"] = "keep"
    classes: Annotated[list[Text], Field(min_length=2, max_length=100_000)] | None = None
    resources: Resources = Resources()


class CheckSpec(Section):
    """Look through a data set that was uploaded; made by the upload."""

    kind: Literal["check"]
    api: Api = "strongroom/v1"
    dataset: DatasetReference
    resources: Resources = Resources()


class PredictSpec(Section):
    """Answer with a deployment what is too much to wait for; made by /predictions."""

    kind: Literal["predict"]
    api: Api = "strongroom/v1"
    deployment: Name
    dataset: DatasetReference | None = None
    resources: Resources = Resources()


class BatchSpec(Section):
    """Answer every line of a file; made by /v1/batches. The model is the lines' own to name."""

    kind: Literal["batch"]
    api: Api = "strongroom/v1"
    endpoint: BatchEndpoint
    file: Annotated[str, Field(pattern=r"^file_[0-9a-hjkmnp-tv-z]{26}$")]
    output_seconds: Annotated[int, Field(ge=3600, le=30 * 86_400)] | None = None
    resources: Resources = Resources()


Spec = TrainSpec | FinetuneSpec | ImportSpec | CheckSpec | PredictSpec | BatchSpec
KINDS: dict[
    str,
    type[TrainSpec] | type[FinetuneSpec] | type[ImportSpec] | type[CheckSpec] | type[PredictSpec] | type[BatchSpec],
] = {
    "train": TrainSpec,
    "finetune": FinetuneSpec,
    "import": ImportSpec,
    "check": CheckSpec,
    "predict": PredictSpec,
    "batch": BatchSpec,
}
PLANNED_KINDS = ("optimize", "evaluate", "explain", "export")

"""The document of kind `finetune`: a language model, examples for it, and how its adapter is shaped and learned.

contradictions(spec, facts, signature) -> problems     # what data set and base cannot give, before a worker is taken
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from training.spec.data import DatasetReference, Name, Section, Seed
from training.spec.problems import Planned, Problem
from training.spec.resources import Register, Resources
from training.spec.train import Beta

if TYPE_CHECKING:
    from training.spec.rules import Document

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]  # PEFT's names
TARGETS: tuple[Target, ...] = get_args(Target)
LEAST_ROWS = 2  # one for each part
USUAL_LR = {"supervised": 0.001, "dpo": 0.0002}
COLUMNS = {"supervised": "messages", "dpo": "preferred_output"}  # the column that only this method's data sets have

Positive = Annotated[float, Field(gt=0)]


class BaseReference(Section):
    """The model version that learns; the newest is filled in at submission. `smollm2@1` is read as this object."""

    model: Name
    version: Annotated[int, Field(ge=1)] | None = None


def _spelled(value: object) -> object:
    """An object as it is; `name@3` and `name` taken apart."""
    if not isinstance(value, str):
        return value
    model, at, version = value.partition("@")
    if at and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise PydanticCustomError("model_reference", "must be a model and its version, such as smollm2@1")
    return {"model": model, "version": int(version)} if at else {"model": model}


class FinetuneSplit(Section):
    """The share that is learned, and the share that validates and that the served adapter is proved on."""

    planned = ("method", "group_by", "time_by")

    fractions: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.1]
    seed: Seed = 0


class Supervised(Section):
    """Learn to say what the assistant says in each conversation."""

    name: Literal["supervised"] = "supervised"


class Dpo(Section):
    """Learn which of two answers is preferred (Rafailov et al. 2023); a small beta lets it go far from the base."""

    name: Literal["dpo"]
    beta: Annotated[float, Field(gt=0, le=10)] = 0.1


class Lora(Section):
    """The adapter: two thin matrices beside each of the targets, added with the weight alpha / rank."""

    rank: Annotated[int, Field(ge=1, le=256)] = 8
    alpha: Annotated[float, Field(gt=0, le=4096)] = 16.0
    targets: Annotated[list[Target], Field(min_length=1, max_length=7)] = list(TARGETS)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Scheduler(Section):
    """The learning rate over the run: `warmup` is the share of the steps in which it rises from zero; then it stays
    (none), or falls to zero along a line or a half cosine."""

    name: Annotated[Literal["none", "linear", "cosine"], Planned("step", "onecycle", "plateau")] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05


class FinetuneTrain(Section):
    """How the adapter learns, by AdamW. A step is of batch_size × accumulate rows. `lr` null is the method's usual one,
    `max_tokens` null the base's context. bf16 computes with half the bytes, 2.4 times as fast where the processor
    can (AVX-512 BF16, AMX), and several times slower where it cannot.
    """

    planned = ("early_stop", "optimizer", "loss", "compile", "packing")

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 3
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    accumulate: Annotated[int, Field(ge=1, le=4096)] = 1
    lr: Positive | None = None
    scheduler: Scheduler = Scheduler()
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    clip_norm: Positive | None = 1.0
    precision: Annotated[Literal["fp32", "bf16"], Planned("fp16", "auto")] = "fp32"
    max_tokens: Annotated[int, Field(ge=8, le=2**20)] | None = None
    seed: Seed = 0
    checkpoint_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 30.0


class FinetuneSpec(Section):
    """Learn an adapter for a language model and register it as a version of its own."""

    planned = ("preprocess", "privacy", "optimize", "evaluate", "search", "costs")

    kind: Literal["finetune"]
    api: Literal["strongroom/v1"] = "strongroom/v1"
    name: Name
    base: Annotated[BaseReference, BeforeValidator(_spelled, json_schema_input_type=BaseReference | str)]
    dataset: DatasetReference
    split: FinetuneSplit = FinetuneSplit()
    method: Annotated[Supervised | Dpo, Field(discriminator="name"), Planned("reinforcement")] = Supervised()
    lora: Lora = Lora()
    train: FinetuneTrain = FinetuneTrain()
    resources: Resources = Resources()
    register_: Register = Field(default=Register(), alias="register")  # every class has a `register`: ABCMeta's

    def filled(self) -> FinetuneSpec:
        """Every default that depends on another field, written out: the stored spec alone repeats the run."""
        update = {
            "train": self.train.model_copy(update={"lr": self.train.lr or USUAL_LR[self.method.name]}),
            "register_": self.register_.model_copy(update={"model": self.register_.model or self.name}),
        }
        return self.model_copy(update=update)


# ---- across fields


def _targets_are_distinct(spec: Document) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(spec.get("lora", "targets")):
        if name in seen:
            yield Problem(f"/lora/targets/{index}", "duplicate", "is there twice", None)
        seen.add(name)


def _fractions_add_up(spec: Document) -> Iterator[Problem]:
    total = sum(spec.get("split", "fractions"))
    if abs(total - 1) > 1e-6:
        yield Problem("/split/fractions", "split_sum", f"must add up to 1, add up to {total:g}", "such as 0.9, 0.1")


RULES: tuple[Callable[[Document], Iterator[Problem]], ...] = (_fractions_add_up, _targets_are_distinct)


# ---- across documents


def contradictions(
    spec: FinetuneSpec, facts: Mapping[str, Any], signature: Mapping[str, Any] | None = None
) -> list[Problem]:
    """All of them. `facts`: a data-set version as the API shows it; `signature`: what the base takes and gives."""
    return [*_of_data(spec, facts), *(() if signature is None else _of_base(spec, signature))]


def _of_data(spec: FinetuneSpec, facts: Mapping[str, Any]) -> Iterator[Problem]:
    wanted, found = spec.dataset.fingerprint, facts.get("fingerprint")
    if wanted is not None and found is not None and wanted != found:
        yield Problem("/dataset/fingerprint", "fingerprint", "is not that of this version", f"it is {found}")
    if (modality := facts.get("modality")) != "text":
        hint = "upload examples with format=chat-jsonl"
        yield Problem("/dataset", "modality", f"is {modality}, a language model learns from text", hint)
        return
    if (rows := facts.get("rows")) is not None and rows < LEAST_ROWS:
        yield Problem("/dataset", "rows", f"has {rows} rows, a split needs {LEAST_ROWS} or more", None)
    columns = [column["name"] for column in facts.get("columns") or ()]
    if columns and COLUMNS[spec.method.name] not in columns:
        other = next((name for name, column in COLUMNS.items() if column in columns), "supervised")
        shown = ", ".join(columns[:20])
        yield Problem("/method/name", "method_data", f"'{spec.method.name}' cannot learn from {shown}", f"use {other}")


def _of_base(spec: FinetuneSpec, signature: Mapping[str, Any]) -> Iterator[Problem]:
    if signature.get("kind") != "language" or signature.get("adapter"):
        what = "is an adapter itself" if signature.get("adapter") else "is no language model"
        yield Problem("/base", "base", what, "name a version of task generation that was imported")
        return
    if not signature.get("chat"):
        yield Problem("/base", "chat_template", "has no chat template to write conversations by", "use a chat model")
    context, most = signature.get("context_length"), spec.train.max_tokens
    if context is not None and most is not None and most > context:
        yield Problem("/train/max_tokens", "context", f"is {most}, the base looks back on {context}", f"use {context}")

"""The body of POST /v1/fine_tuning/jobs, what it is as a document of kind `finetune`, and the way back: problems of the
spec at the request's parameters, the hyperparameters that count, metrics by OpenAI's names.

Knows the job spec, no rows: whose file and which base are meant is the endpoint's to find.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from strongroom.errors import StrongroomError
from strongroom.openai import parameters, resources
from strongroom.openai.problems import refusal, shown
from strongroom.openai.requests import Document, Metadata
from training.spec.finetune import USUAL_LR

Kind = Literal["supervised", "dpo"]
MOST_NAME = 63
_NO_NAME = re.compile(r"[^a-z0-9]+")
POINTERS = {
    "/base": "/model",
    "/dataset": "/training_file",
    "/name": "/suffix",
    "/register/model": "/suffix",
    "/method": "/method/type",
    "/method/beta": "/method/dpo/hyperparameters/beta",
}


def _usual(given: Any) -> Any:
    """`auto` is as good as nothing."""
    return None if given == "auto" else given


class Hyperparameters(Document):
    """`learning_rate_multiplier`: of the method's usual rate."""

    n_epochs: Annotated[Annotated[int, Field(ge=1, le=10_000)] | None, BeforeValidator(_usual)] = None
    batch_size: Annotated[Annotated[int, Field(ge=1, le=4096)] | None, BeforeValidator(_usual)] = None
    learning_rate_multiplier: Annotated[Annotated[float, Field(gt=0, le=1000)] | None, BeforeValidator(_usual)] = None


class DpoHyperparameters(Hyperparameters):
    beta: Annotated[Annotated[float, Field(gt=0, le=2)] | None, BeforeValidator(_usual)] = None


class Supervised(Document):
    hyperparameters: Hyperparameters = Hyperparameters()


class Dpo(Document):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(Document):
    """Only the section of its type may be there."""

    refused = parameters.METHOD

    type: Kind
    supervised: Supervised | None = None
    dpo: Dpo | None = None

    @model_validator(mode="after")
    def _own(self) -> Method:
        other: Kind = "dpo" if self.type == "supervised" else "supervised"
        if getattr(self, other) is not None:
            raise refusal("invalid_value", f"belongs to type '{other}', the type is '{self.type}'", other)
        return self


class TuningRequest(Document):
    """`hyperparameters` is the older place for those of a supervised method."""

    refused = parameters.TUNING

    model: Annotated[str, Field(min_length=1, max_length=200)]
    training_file: Annotated[str, Field(min_length=1, max_length=200)]
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _one_place(self) -> TuningRequest:
        if self.hyperparameters is not None and self.method is not None:
            message = f"is the older form; give them in method.{self.method.type}.hyperparameters alone"
            raise refusal("invalid_value", message, "hyperparameters")
        if self.suffix is not None and not _plain(self.suffix):
            raise refusal("invalid_value", f"must have a letter or a digit, is {shown(self.suffix)}", "suffix")
        return self

    def document(self, base: tuple[str, int], dataset: tuple[str, int]) -> dict[str, Any]:
        """The job spec; what was not said has the spec's defaults."""
        kind: Kind = "supervised" if self.method is None else self.method.type
        chosen = self._chosen(kind)
        times, beta = chosen.learning_rate_multiplier, getattr(chosen, "beta", None)
        train = {
            "epochs": chosen.n_epochs,
            "batch_size": chosen.batch_size,
            "lr": None if times is None else USUAL_LR[kind] * times,
            "seed": self.seed,
        }
        method: dict[str, Any] = {"name": kind}
        return {
            "kind": "finetune",
            "name": name_of(base[0], self.suffix),
            "base": {"model": base[0], "version": base[1]},
            "dataset": {"name": dataset[0], "version": dataset[1]},
            "split": {"seed": self.seed},
            "method": method if beta is None else method | {"beta": beta},
            "train": {key: value for key, value in train.items() if value is not None},
        }

    def _chosen(self, kind: Kind) -> Hyperparameters:
        section = None if self.method is None else getattr(self.method, kind)
        found: Hyperparameters | None = self.hyperparameters if section is None else section.hyperparameters
        return found or Hyperparameters()


def name_of(base: str, suffix: str | None) -> str:
    """Of the job, and of the model that the adapter becomes a version of: `smollm2-support-tone`."""
    end = "tuned" if suffix is None else _plain(suffix)
    return f"{base[: MOST_NAME - 1 - len(end)]}-{end}"


def _plain(suffix: str) -> str:
    """As names are: lower-case letters and digits, dashes between; 40 characters, so that the base's is told, too."""
    return _NO_NAME.sub("-", suffix.lower())[:40].strip("-")


Failure = TypeVar("Failure", bound=StrongroomError)


def as_asked(error: Failure) -> Failure:
    """The spec's problems at the parameters that they come from."""
    problems = [replace(one, path=_asked(one.path)) for one in error.errors]
    return type(error)(error.detail, code=error.code, errors=problems)


def _asked(pointer: str) -> str:
    parts = pointer.split("/")
    beginnings = ("/".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((POINTERS[one] for one in beginnings if one in POINTERS), pointer)


# --- a job's spec, as its caller chose it


def chosen(spec: Mapping[str, Any]) -> dict[str, int | float | str]:
    """The hyperparameters that count, `auto` written out."""
    train, method = spec["train"], spec["method"]
    found: dict[str, int | float | str] = {
        "n_epochs": train["epochs"],
        "batch_size": train["batch_size"] * train["accumulate"],
        "learning_rate_multiplier": train["lr"] / USUAL_LR[method["name"]],
    }
    return found | ({"beta": method["beta"]} if method["name"] == "dpo" else {})


# --- events


def metric(name: str) -> str:
    """`validation/loss` as OpenAI calls it, `valid_loss`."""
    part, _, what = name.partition("/")
    return f"{'valid' if part == 'validation' else part}_{what}"


def metric_event(id: str, created: int, data: Mapping[str, Any]) -> resources.Json:
    """Of one metric at the end of an epoch."""
    name, value, step = metric(data["name"]), data["value"], data.get("step")
    return resources.fine_tuning_event(
        id,
        created=created,
        level="info",
        message=f"Step {step}, epoch {data.get('epoch')}: {name}={value:.4g}",
        metrics={"step": step, name: value},
    )

"""The spec's sections about learning and its proof: loss, optimizer, batches, early stop, export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.spec.data import Section, Seed
from training.spec.problems import Planned

Beta = Annotated[float, Field(ge=0, lt=1)]
Tolerance = Annotated[float, Field(gt=0, le=1)]


class Loss(Section):
    """`auto` becomes cross_entropy for classification and mse for regression."""

    planned = ("class_weights", "label_smoothing")

    name: Annotated[Literal["auto", "cross_entropy", "mse"], Planned("mae", "huber", "bce", "focal")] = "auto"


class Optimizer(Section):
    """Plain gradient descent is sgd with momentum 0; momentum and nesterov belong to sgd, betas to adamw."""

    name: Annotated[Literal["sgd", "adamw"], Planned("adam", "rmsprop", "adagrad", "lbfgs")] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 0.001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class EarlyStop(Section):
    """Ends the training when `metric` has not improved for `patience` epochs."""

    metric: Literal["validation/loss", "validation/accuracy", "validation/f1", "validation/r2"] = "validation/loss"
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    restore_best: bool = True


class Train(Section):
    """How the network learns. A batch_size over the number of rows takes them all: gradient descent."""

    planned = ("scheduler", "accumulate", "precision", "compile")

    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    batch_size: Annotated[int, Field(ge=1, le=2**31)] = 32
    seed: Seed = 0
    deterministic: bool = True
    early_stop: EarlyStop | None = None
    checkpoint_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 30.0


class Parity(Section):
    """How far the exported graph may be from the trained network, on real rows of the validation part."""

    atol: Tolerance = 1e-4
    rtol: Tolerance = 1e-3


class Export(Section):
    """What the trained network is written as."""

    formats: Annotated[
        list[Annotated[Literal["onnx"], Planned("tflite", "torch_export")]], Field(min_length=1, max_length=3)
    ] = ["onnx"]
    opset: Annotated[Literal[20], Planned(18, 19, 21, 22, 23)] = 20
    parity: Parity = Parity()

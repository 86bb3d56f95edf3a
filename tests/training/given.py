"""Documents and data sets that tests of the learning core begin with: the founding recipe and scikit-learn's digits."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_digits

from tests.training.making import npz

Json = dict[str, Any]
SMALLEST: Json = {
    "name": "lenet-digits",
    "task": "classification",
    "dataset": {"name": "digits"},
    "model": {"kind": "catalogue", "name": "lenet"},
    "train": {
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9},
        "batch_size": 4,
        "epochs": 25,
    },
}
LENET_LAYERS: list[Json] = [
    {"op": "conv2d", "out": 6, "kernel": 5},
    {"op": "relu"},
    {"op": "max_pool", "kernel": 2},
    {"op": "conv2d", "out": 16, "kernel": 5},
    {"op": "relu"},
    {"op": "max_pool", "kernel": 2},
    {"op": "flatten"},
    {"op": "linear", "out": 120},
    {"op": "relu"},
    {"op": "linear", "out": 84},
    {"op": "relu"},
    {"op": "linear", "out": 10},
]


def document(**changes: Any) -> Json:
    """The smallest document, sections replaced; `train` is merged."""
    made = copy.deepcopy(SMALLEST)
    made["train"].update(changes.pop("train", {}))
    made.update(changes)
    return made


@cache
def digits(side: int = 32, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 and labels, as the demo uploads them."""
    found = load_digits()
    images = torch.tensor(found.images / 16 * 255, dtype=torch.float32)[:, None]
    grown = F.interpolate(images, size=(side, side), mode="bilinear").round().clamp(0, 255).to(torch.uint8)
    return grown.repeat(1, channels, 1, 1).numpy(), found.target


def digits_npz(side: int = 32, channels: int = 3) -> bytes:
    images, labels = digits(side, channels)
    return npz(image=images, label=labels)


def diabetes_npz() -> bytes:
    found = load_diabetes()
    return npz(features=found.data.astype(np.float32), label=found.target.astype(np.float32))

"""What the optimizer minimises: the mean over a batch's rows, from raw scores and targets. One function per name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F

Criterion: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the right class."""
    return F.cross_entropy(scores, target)


def class_mse(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared distance of the probabilities from the right class's one (Brier's score over the number of classes)."""
    wanted = F.one_hot(target, scores.shape[1]).to(scores.dtype)
    return F.mse_loss(torch.softmax(scores, dim=1), wanted)


def value_mse(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared distance from the standardised target."""
    return F.mse_loss(scores.squeeze(1), target)


CRITERIA: dict[tuple[str, str], Criterion] = {
    ("cross_entropy", "classification"): cross_entropy,
    ("mse", "classification"): class_mse,
    ("mse", "regression"): value_mse,
}


def criterion(name: str, task: str) -> Criterion:
    """The loss of a spec, `auto` being resolved already."""
    return CRITERIA[name, task]

"""The whole learned function: raw inputs → preprocessing → body → scores; and with its head → what is served."""

from __future__ import annotations

import torch
from torch import nn

from training.preprocess import Preprocess


class Whole(nn.Module):
    """Raw inputs to the body's scores. The body is what learns and is kept; preprocessing was fitted before."""

    def __init__(self, preprocess: Preprocess, body: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.body = body

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.body(self.preprocess(*inputs))
        return scores


class Served(Whole):
    """What the exported graph computes: probabilities of the classes, or the value in the target's own units."""

    def __init__(self, preprocess: Preprocess, body: nn.Module, scale: tuple[float, float] | None) -> None:
        super().__init__(preprocess, body)
        self.scale = scale  # mean and deviation of a regression's target; None for classes

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        scores = super().forward(*inputs)
        if self.scale is None:
            return torch.softmax(scores, dim=1)
        mean, deviation = self.scale
        return scores * deviation + mean

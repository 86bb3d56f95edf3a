"""The whole learned function: raw inputs → preprocessing → network → raw scores; and with its head → what is served.

What is needed of a preprocessing module (training/preprocess), fitted on the training part only:
    names          the inputs, in the order of `forward`'s arguments
    encode(inputs) arrays of the data set → tensors [N, …]: uint8 images, float32 numbers [N, 1] or features [N, F],
                   int64 codes [N, 1] of a text column, 0 where the value was not seen in training or is missing
    vocabularies   text column → its values; the code of a value is its position + 1
    input_shape    shape of one row of `forward`'s float32 output, which is the network's input
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

if TYPE_CHECKING:
    from training.data.rows import Array


class Preprocess(Protocol):
    """See above: the image and the tabular module are two real ones."""

    names: Sequence[str]
    vocabularies: Mapping[str, Sequence[str]]
    input_shape: tuple[int, ...]

    def encode(self, inputs: Mapping[str, Array]) -> tuple[torch.Tensor, ...]: ...


class Served(nn.Module):
    """What the exported graph computes: probabilities of the classes, or the value in the target's own units."""

    def __init__(self, preprocess: nn.Module, body: nn.Module, scale: tuple[float, float] | None) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.body = body
        self.scale = scale  # mean and deviation of a regression's target; None for classes

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.body(self.preprocess(*inputs))
        if self.scale is None:
            return torch.softmax(scores, dim=1)
        mean, deviation = self.scale
        return scores * deviation + mean

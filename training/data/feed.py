"""Batches by index from memory: whole batches are gathered at once, which a loader of single rows does not reach.

Knows tensors and indices. What the rows mean, in which order they come and who wants them is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Feed:
    """The encoded inputs of all rows beside their target."""

    def __init__(self, inputs: Sequence[torch.Tensor], target: torch.Tensor) -> None:
        if any(len(one) != len(target) for one in inputs):
            raise ValueError("inputs and target have different numbers of rows")
        self.inputs = tuple(inputs)
        self.target = target

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, index: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        return tuple(one.index_select(0, index) for one in self.inputs), self.target.index_select(0, index)

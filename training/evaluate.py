"""The metrics of a network on one part of the data, without learning from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from training.data.feed import Feed
from training.losses import Criterion
from training.metrics import ClassTally, ValueTally

MOST_SHOWN = 500  # classes of a confusion matrix that is kept: it grows by their square
ROWS = 512  # rows at once: small enough that control is looked at in time


@dataclass(frozen=True, slots=True)
class Score:
    """What a part of the data says about the network."""

    metrics: dict[str, float]
    confusion: list[list[int]] | None

    def named(self, part: str) -> dict[str, float]:
        return {f"{part}/{name}": value for name, value in self.metrics.items()}


def evaluate(
    network: nn.Module,
    feed: Feed,
    index: torch.Tensor,
    criterion: Criterion,
    classes: int | None,
    look: Callable[[], None],
) -> Score:
    """`look` is called between batches and raises when the job shall end."""
    tally = ValueTally() if classes is None else ClassTally(classes)
    total = 0.0
    network.eval()
    with torch.inference_mode():
        for rows in torch.split(index, ROWS):
            look()
            inputs, target = feed.batch(rows)
            scores = network(*inputs)
            total += criterion(scores, target).item() * len(rows)
            tally.add(scores, target)
    network.train()
    confusion = None
    if isinstance(tally, ClassTally) and len(tally.confusion) <= MOST_SHOWN:
        confusion = tally.confusion.tolist()
    return Score({"loss": total / len(index), **tally.values()}, confusion)


def is_finite(score: Score) -> bool:
    return all(math.isfinite(value) for value in score.metrics.values())

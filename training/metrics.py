"""Loss, accuracy, macro f1, confusion and r2, added up batch by batch. Names are the API's.

It knows scores and targets; which part of the data they are of, and who reads the numbers, is not its business.
"""

from __future__ import annotations

import torch


class ClassTally:
    """Counts of (true class, predicted class) over batches."""

    def __init__(self, classes: int) -> None:
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, scores: torch.Tensor, target: torch.Tensor) -> None:
        classes = len(self.confusion)
        pairs = target * classes + scores.argmax(dim=1)
        self.confusion += torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def values(self) -> dict[str, float]:
        return {"accuracy": accuracy(self.confusion), "f1": macro_f1(self.confusion)}


class ValueTally:
    """Errors and targets over batches, in float64."""

    def __init__(self) -> None:
        self._errors: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    def add(self, scores: torch.Tensor, target: torch.Tensor) -> None:
        self._errors.append(scores.squeeze(1).double() - target.double())
        self._targets.append(target.double())

    def values(self) -> dict[str, float]:
        return {"r2": r2(torch.cat(self._errors), torch.cat(self._targets))}


def accuracy(confusion: torch.Tensor) -> float:
    """Share of rows on the diagonal."""
    return int(confusion.trace()) / int(confusion.sum())


def macro_f1(confusion: torch.Tensor) -> float:
    """Mean f1 over the classes that occur in the truth or in the predictions."""
    hits = confusion.diagonal().double()
    total = (confusion.sum(dim=0) + confusion.sum(dim=1)).double()
    occurs = total > 0
    return float((2 * hits[occurs] / total[occurs]).mean())


def r2(error: torch.Tensor, target: torch.Tensor) -> float:
    """Share of the variance that is explained; of a constant target 1 if it is met exactly, else 0."""
    around_mean = float(((target - target.mean()) ** 2).sum())
    left = float((error**2).sum())
    if around_mean == 0:
        return 1.0 if left == 0 else 0.0
    return 1 - left / around_mean

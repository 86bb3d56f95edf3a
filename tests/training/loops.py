"""Loops over given tensors: all rows train, and validate and test too unless parts are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from training.data.feed import Feed
from training.loop import Control, Loop, Parts, Progress, Watch
from training.losses import criterion
from training.spec import TrainSpec


@dataclass
class Witness:
    """Who watches a loop in a test: keeps all news; `wants` is asked what the parent wants, by the count of askings."""

    wants: Callable[[int], Control] = lambda count: None
    asked: int = 0
    news: list[Progress] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    saved: list[dict[str, Any]] = field(default_factory=list)
    keep: Callable[[dict[str, Any]], dict[str, Any]] = lambda state: state

    def control(self) -> Control:
        self.asked += 1
        return self.wants(self.asked)

    def watch(self) -> Watch:
        return Watch(
            self.control, self.news.append, self.lines.append, lambda state: self.saved.append(self.keep(state))
        )


def made_loop(
    spec: TrainSpec,
    body: nn.Module,
    inputs: torch.Tensor,
    target: torch.Tensor,
    *,
    witness: Witness | None = None,
    parts: Parts | None = None,
    max_seconds: float = float("inf"),
    classes: int | None = 10,
    **train: Any,
) -> Loop:
    rows = torch.arange(len(target))
    return Loop(
        spec.train.model_copy(update=train),
        network=body,
        body=body,
        feed=Feed((inputs,), target),
        parts=parts or Parts(rows, rows, rows),
        criterion=criterion(spec.train.loss.name, spec.task),
        classes=classes,
        watch=(witness or Witness()).watch(),
        max_seconds=max_seconds,
    )

"""The training loop, top to bottom: batches by index, one step after the other, a validation after each epoch.

It knows a network, a feed of rows and the spec's `train` section. It does not know what the rows mean, where they came
from, who watches, and how a checkpoint is kept: those are four functions that it calls. One thread, the job's own.

The order of the rows is a pure function of (seed, epoch), so that a place in the run is (epoch, step) and a run that
was killed goes on bit for bit from its last checkpoint.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.backends import mkldnn

from training import optimizers
from training.data.feed import Feed
from training.errors import Cancelled, Diverged, Drained, TimedOut
from training.evaluate import Score, evaluate, is_finite
from training.losses import Criterion
from training.spec.train import Train

Control = Literal["cancel", "drain"] | None
SLICE_ROWS = 1024  # a larger batch is added up in slices: memory stays bounded and control is looked at in time
PROGRESS_SECONDS = 0.5
SMALL_BATCH = 8  # rows up to which torch's own convolutions beat oneDNN's: LeNet's step takes 0.83 of its time at 4


@dataclass(frozen=True, slots=True)
class Parts:
    """Row numbers of the three parts."""

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the run is; `epoch` counts from 1, `step` over the whole run; metrics at the end of an epoch only."""

    epoch: int
    epochs: int
    step: int
    steps: int
    eta_seconds: float | None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        return self.step / self.steps


@dataclass(frozen=True, slots=True)
class Watch:
    """Who follows the run: what is wanted of it, and where its news and its states go."""

    control: Callable[[], Control]
    progress: Callable[[Progress], None]
    log: Callable[[str], None]
    save: Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Best:
    """The best epoch by the early stop's metric; ties go to the lower validation loss, then to the later epoch."""

    epoch: int
    order: tuple[float, float]
    weights: dict[str, torch.Tensor] | None


@contextmanager
def convolutions_for(batch_size: int) -> Iterator[None]:
    """torch's own kernels for small batches, oneDNN's for the others; the batch size decides, so that runs repeat."""
    before = mkldnn.enabled
    mkldnn.enabled = batch_size > SMALL_BATCH  # type: ignore[assignment]  # a property of the module itself
    try:
        yield
    finally:
        mkldnn.enabled = before


class Loop:
    """One training. `network` is what is applied to the feed's rows; `body` inside it is what learns and is kept."""

    def __init__(
        self,
        spec: Train,
        *,
        network: nn.Module,
        body: nn.Module,
        feed: Feed,
        parts: Parts,
        criterion: Criterion,
        classes: int | None,
        watch: Watch,
        max_seconds: float = math.inf,
    ) -> None:
        self.spec, self.network, self.body = spec, network, body
        self.feed, self.parts, self.criterion, self.classes = feed, parts, criterion, classes
        self.watch, self.max_seconds = watch, max_seconds
        self.parameters = [parameter for parameter in body.parameters() if parameter.requires_grad]
        self.optimizer = optimizers.build(spec.optimizer, self.parameters)
        self.batch_size = min(spec.batch_size, len(parts.train))
        self.steps_per_epoch = -(-len(parts.train) // self.batch_size)
        self.steps = self.steps_per_epoch * spec.epochs
        self.epoch = self.step = 0  # finished epochs, finished steps of the one that runs
        self.loss_sum = 0.0  # of that epoch's rows so far
        self.best: Best | None = None
        self.progressed = 0  # the epoch that last improved the early stop's metric
        self.earlier_seconds = 0.0  # spent by attempts before this one
        self.started_at = self.saved_at = self.told_at = time.monotonic()
        self.resumed_step = 0

    # ---- the run

    def run(self) -> None:
        """Trains to the last epoch or to the early stop; the body then has the weights that count."""
        self.network.train()
        while self.epoch < self.spec.epochs and not self._has_stalled():
            with convolutions_for(self.batch_size):
                for rows in self._batches():
                    self._learn(rows)
                    self.step += 1
                    self._look_up()
            self._finish_epoch()
        if self.best is not None and self.best.weights is not None:
            self.body.load_state_dict(self.best.weights)
            self.watch.log(f"the weights of epoch {self.best.epoch} are kept")

    def evaluate(self, part: torch.Tensor) -> Score:
        return evaluate(self.network, self.feed, part, self.criterion, self.classes, self.obey)

    def _batches(self) -> Iterator[torch.Tensor]:
        rows = self.parts.train
        if self.steps_per_epoch > 1:  # of a whole batch the order says nothing
            order = torch.Generator().manual_seed((self.spec.seed * 1_000_003 + self.epoch) & 0xFFFFFFFF)
            rows = rows[torch.randperm(len(rows), generator=order)]
        yield from torch.split(rows, self.batch_size)[self.step :]

    def _learn(self, rows: torch.Tensor) -> None:
        """One step of the optimizer."""
        total = 0.0
        for some in torch.split(rows, SLICE_ROWS):
            inputs, target = self.feed.batch(some)
            loss = self.criterion(self.network(*inputs), target)
            share = len(some) / len(rows)
            (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += loss.item() * share
            if share != 1 and self.watch.control() == "cancel":
                raise Cancelled
        if not math.isfinite(total):
            self._diverge(total)
        if self.spec.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.spec.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += total * len(rows)

    def _finish_epoch(self) -> None:
        validation = self.evaluate(self.parts.validation)
        metrics = {"train/loss": self.loss_sum / len(self.parts.train), **validation.named("validation")}
        if not is_finite(validation):
            self._diverge(validation.metrics["loss"])
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
        self._compare(metrics)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.watch.log(f"epoch {self.epoch} of {self.spec.epochs}: {shown}")
        self._tell(time.monotonic(), metrics)

    def _diverge(self, loss: float) -> None:
        what = "NaN" if math.isnan(loss) else "infinite"
        lr = self.spec.optimizer.lr
        where = f"epoch {min(self.epoch + 1, self.spec.epochs)}, step {self.done}"
        raise Diverged(f"the loss became {what} at {where}", f"lower train.optimizer.lr, now {lr:g}")

    # ---- early stop

    def _compare(self, metrics: dict[str, float]) -> None:
        stop = self.spec.early_stop
        if stop is None:
            return
        value = metrics[stop.metric]
        order = (-value if stop.metric.endswith("loss") else value, -metrics["validation/loss"])
        if self.best is None or order > self.best.order:
            self.progressed = self.epoch
        if self.best is None or order >= self.best.order:
            self.best = Best(self.epoch, order, copy.deepcopy(self.body.state_dict()) if stop.restore_best else None)

    def _has_stalled(self) -> bool:
        stop = self.spec.early_stop
        if stop is None or self.epoch - self.progressed < stop.patience:
            return False
        self.watch.log(f"{stop.metric} has not improved since epoch {self.progressed}: the training ends early")
        return True

    # ---- who watches

    @property
    def done(self) -> int:
        """Finished steps of the whole run."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.started_at

    def obey(self) -> None:
        """What is wanted from outside. Called while nothing is being learnt, so that the state is whole."""
        wanted = self.watch.control()
        if wanted == "cancel":
            raise Cancelled
        if wanted == "drain":
            self.watch.save(self.state())
            raise Drained
        self._check_time()

    def _check_time(self) -> None:
        if self.seconds > self.max_seconds:
            what = f"{self.max_seconds:g} seconds were not enough: step {self.done} of {self.steps}"
            raise TimedOut(what, "raise resources.max_seconds, or train fewer epochs")

    def _look_up(self) -> None:
        """After each step: what is wanted, what is due."""
        self.obey()
        now = time.monotonic()
        if now - self.saved_at >= self.spec.checkpoint_seconds:
            self.watch.save(self.state())
            self.saved_at = time.monotonic()
        if now - self.told_at >= PROGRESS_SECONDS:
            self._tell(now, {})

    def _tell(self, now: float, metrics: dict[str, float]) -> None:
        self.told_at = now
        here = self.done - self.resumed_step
        eta = (now - self.started_at) / here * (self.steps - self.done) if here else None
        epoch = min(self.epoch + (1 if self.step else 0), self.spec.epochs)
        self.watch.progress(Progress(epoch, self.spec.epochs, self.done, self.steps, eta, metrics))

    # ---- state

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, beside the spec, the data and torch's random state."""
        best = self.best
        return {
            "at": [self.epoch, self.step],
            "loss_sum": self.loss_sum,
            "body": self.body.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": None if best is None else [best.epoch, list(best.order), best.weights],
            "progressed": self.progressed,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.epoch, self.step = state["at"]
        self.loss_sum, self.progressed = state["loss_sum"], state["progressed"]
        self.body.load_state_dict(state["body"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["best"] is not None:
            epoch, (metric, loss), weights = state["best"]
            self.best = Best(epoch, (metric, loss), weights)
        self.earlier_seconds = state["seconds"]
        self.resumed_step = self.done

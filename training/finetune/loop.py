"""The fine-tuning loop: training's own loop, whose step is of rows of tokens, a few of them at a time.

What differs from training.loop: a step is cut into pieces of bounded size, its learning rate follows a schedule, and
inside a step control is looked at before every matrix, there and back; only what learns changes, and only at a step's
end, so that a step that is broken off leaves the state of its beginning. Knows examples, no text. One thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from training.data.feed import Feed
from training.errors import Cancelled, Diverged, Drained
from training.evaluate import Score
from training.finetune.llama import Llama
from training.finetune.lora import Adapter
from training.finetune.objective import Objective, Preference, Supervised
from training.finetune.rows import Example
from training.loop import Loop, Parts, Watch
from training.spec.finetune import Dpo, FinetuneSpec, FinetuneTrain, Scheduler
from training.spec.train import Optimizer, Train

PIECE_TOKENS = 1024  # computed at once, or one row where it is longer: bounds memory, and the time between two looks


class Tuning(Loop):
    """One fine-tuning. `kept_tokens`: pieces of more are computed twice, which needs less memory and gives the same."""

    def __init__(
        self,
        spec: FinetuneSpec,
        *,
        adapter: Adapter,
        network: Callable[[Callable[[], None]], Llama],
        learning: Sequence[Example],
        validating: Sequence[Example],
        watch: Watch,
        kept_tokens: int,
    ) -> None:
        self.tuning, self.kept_tokens = spec.train, kept_tokens
        self.examples = [*learning, *validating]
        numbers = torch.arange(len(self.examples))
        parts = Parts(numbers[: len(learning)], numbers[len(learning) :], numbers[:0])
        self.objective: Objective = Preference(spec.method.beta) if isinstance(spec.method, Dpo) else Supervised()
        self.llama = network(self.look)
        self.adapter = adapter
        super().__init__(
            _as_train(spec.train),
            network=self.llama,
            body=adapter,
            feed=Feed((), numbers),
            parts=parts,
            criterion=_no_criterion,
            classes=None,
            watch=watch,
            max_seconds=spec.resources.max_seconds,
        )
        self.before: dict[str, float] = {}  # metrics of the base
        self.metrics: dict[str, float] = {}  # of the last epoch
        self._before_step: torch.Tensor | None = None  # torch's random state, while a step is being learned

    # ---- the run

    def run(self) -> None:
        """Trains to the last epoch."""
        self.llama.train()
        self._ask_base()
        while self.epoch < self.spec.epochs:
            for rows in self._batches():
                self._learn(rows)
                self.step += 1
                self._look_up()
            self._finish_epoch()

    def _ask_base(self) -> None:
        """Once, before anything is learned: what preferences are measured against, and how the base does."""
        if isinstance(self.objective, Preference):
            known = self.objective.reference
            self.watch.log(f"asks the base about {len(self.examples) - len(known)} pairs of answers")
            for piece in pieces([example for example in self.examples if example.row not in known]):
                self.objective.refer(self.llama, piece)
        elif not self.before:
            self.before = self.evaluate(self.parts.validation).named("validation")
            shown = ", ".join(f"{name} {value:.4g}" for name, value in self.before.items())
            self.watch.log(f"before anything is learned: {shown}")

    def _learn(self, rows: torch.Tensor) -> None:
        """One step of the optimizer."""
        examples = [self.examples[row] for row in rows.tolist()]
        count = self.objective.count(examples)
        self._before_step = torch.get_rng_state()
        total = 0.0
        for piece in pieces(examples):
            tally = self.objective.tally(self.llama, piece, recompute=self._is_large(piece))
            (tally.total / count).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += tally.total.item() / count
        self._before_step = None
        if not math.isfinite(total):
            self._diverge(total)
        if self.tuning.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.tuning.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.tuning, self.done, self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += total * len(rows)

    def _compare(self, metrics: dict[str, float]) -> None:
        """At an epoch's end."""
        self.metrics = metrics

    def _is_large(self, examples: Sequence[Example]) -> bool:
        return sum(example.size for example in examples) > self.kept_tokens

    def evaluate(self, part: torch.Tensor) -> Score:
        total, count = 0.0, 0
        others: dict[str, float] = {}
        self.llama.eval()
        with torch.no_grad():
            for piece in pieces([self.examples[row] for row in part.tolist()]):
                tally = self.objective.tally(self.llama, piece, recompute=False)
                total, count = total + tally.total.item(), count + tally.count
                others |= {name: others.get(name, 0.0) + value for name, value in tally.others.items()}
        self.llama.train()
        return Score(self.objective.metrics(total, count, others), None)

    def _diverge(self, loss: float) -> None:
        what = "NaN" if math.isnan(loss) else "infinite"
        where = f"epoch {min(self.epoch + 1, self.spec.epochs)}, step {self.done}"
        raise Diverged(f"the loss became {what} at {where}", f"lower train.lr, now {self.tuning.lr:g}")

    # ---- who watches

    def look(self) -> None:
        """Inside a step as between two: the state that is kept is that of the step's beginning."""
        wanted = self.watch.control()
        if wanted == "cancel":
            raise Cancelled
        if wanted == "drain":
            if self._before_step is not None:
                torch.set_rng_state(self._before_step)
            self.watch.save(self.state())
            raise Drained

    # ---- state

    def state(self) -> dict[str, Any]:
        known = self.objective.reference if isinstance(self.objective, Preference) else {}
        more = {"reference": dict(known), "before": dict(self.before), "metrics": dict(self.metrics)}
        return {**super().state(), **more}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.before, self.metrics = dict(state["before"]), dict(state["metrics"])
        if isinstance(self.objective, Preference):
            self.objective.reference.update(state["reference"])


def pieces(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """In order, as many at a time as PIECE_TOKENS hold, one at least."""
    piece: list[Example] = []
    size = 0
    for example in examples:
        if piece and size + example.size > PIECE_TOKENS:
            yield piece
            piece, size = [], 0
        piece.append(example)
        size += example.size
    if piece:
        yield piece


def learning_rate(spec: FinetuneTrain, step: int, steps: int) -> float:
    """Of a step, counted from 0."""
    highest = spec.lr or 0.0
    rising = int(spec.scheduler.warmup * steps)
    if step < rising:
        return highest * (step + 1) / (rising + 1)
    gone = (step - rising) / max(1, steps - rising)
    return highest * _share(spec.scheduler, gone)


def _share(scheduler: Scheduler, gone: float) -> float:
    if scheduler.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * gone))
    return 1 - gone if scheduler.name == "linear" else 1.0


def _as_train(spec: FinetuneTrain) -> Train:
    """What training's own loop needs to know of it."""
    optimizer = Optimizer(
        name="adamw", lr=spec.lr or 0.0, betas=spec.betas, weight_decay=spec.weight_decay, clip_norm=spec.clip_norm
    )
    return Train(
        optimizer=optimizer,
        epochs=spec.epochs,
        batch_size=spec.batch_size * spec.accumulate,
        seed=spec.seed,
        checkpoint_seconds=spec.checkpoint_seconds,
    )


def _no_criterion(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Of scores and targets there is none here: the objective says what is learned."""
    raise AssertionError("a fine-tuning learns by its objective")

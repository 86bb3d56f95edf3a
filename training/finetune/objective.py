"""What is learned: to say the answers (supervised), or to prefer one answer to another (Rafailov et al. 2023).

Both look at log-probabilities of the tokens that count, and only there is the head computed, a few tokens at a time:
the logits of a whole batch would be larger than the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from training.finetune.base_model import Look
from training.finetune.llama import Llama, Ragged
from training.finetune.rows import Example

HEAD_TOKENS = 64  # whose logits are there at once


class _LogProbabilities(torch.autograd.Function):
    """Of each target, and its gradient on the way: the head is frozen, so that a row of the gradient is a number times
    a row that is known at once."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, look: Look) -> torch.Tensor:
        found = hidden.new_empty(len(hidden), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for first in range(0, len(hidden), HEAD_TOKENS):
            look()
            here = slice(first, first + HEAD_TOKENS)
            logits = (hidden[here] @ head.T).float()
            likely = logits.log_softmax(-1)
            wanted = targets[here, None]
            found[here] = likely.gather(1, wanted).squeeze(1)
            if slopes is not None:
                away = likely.exp_().neg_().scatter_add_(1, wanted, torch.ones_like(wanted, dtype=torch.float32))
                slopes[here] = away.to(head.dtype) @ head
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        (slopes,) = ctx.saved_tensors
        return (gradient[:, None] * slopes).to(slopes.dtype), None, None, None


def log_probabilities(
    network: Llama, examples: Sequence[Example], *, adapted: bool = True, recompute: bool = False
) -> tuple[torch.Tensor, list[int]]:
    """Of each token that counts, a row's behind the other's, and how many are whose."""
    rows = [row for example in examples for row in example.rows]
    ragged = Ragged.of([row.tokens for row in rows])
    hidden = network(ragged, adapted=adapted, recompute=recompute)
    places, first = [], 0
    for row in rows:
        places.append(torch.tensor(row.places) + first)
        first += len(row.tokens)
    counted = torch.cat(places)
    targets = ragged.tokens[counted]
    before = hidden.index_select(0, counted - 1)  # a token is foretold from the one before it
    found: torch.Tensor = _LogProbabilities.apply(before, network.head, targets, network.look)  # type: ignore[no-untyped-call]  # torch's own
    return found, [len(row.places) for row in rows]


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over some examples: what is to become small, by what it is divided, and other metrics by their names."""

    total: torch.Tensor
    count: int
    others: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """What the loop needs to know of a method."""

    def count(self, examples: Sequence[Example]) -> int:
        """By what the loss of these is divided."""

    def tally(self, network: Llama, examples: Sequence[Example], *, recompute: bool) -> Tally: ...

    def metrics(self, total: float, count: int, others: Mapping[str, float]) -> dict[str, float]:
        """Of sums over all examples of a part."""


class Supervised:
    """The mean over all tokens of the answers."""

    def count(self, examples: Sequence[Example]) -> int:
        return sum(len(row.places) for example in examples for row in example.rows)

    def tally(self, network: Llama, examples: Sequence[Example], *, recompute: bool) -> Tally:
        found, _ = log_probabilities(network, examples, recompute=recompute)
        return Tally(-found.sum(), len(found))

    def metrics(self, total: float, count: int, others: Mapping[str, float]) -> dict[str, float]:
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


class Preference:
    """The mean over all pairs. How far answers lie apart is measured against the base, which is asked beforehand."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.reference: dict[int, float] = {}  # by row: how far apart they lie for the base

    def refer(self, network: Llama, examples: Sequence[Example]) -> None:
        """What the base, without its adapter, says of these."""
        with torch.no_grad():
            apart = self._apart(*log_probabilities(network, examples, adapted=False))
        self.reference.update(zip((example.row for example in examples), apart.tolist(), strict=True))

    def count(self, examples: Sequence[Example]) -> int:
        return len(examples)

    def tally(self, network: Llama, examples: Sequence[Example], *, recompute: bool) -> Tally:
        apart = self._apart(*log_probabilities(network, examples, recompute=recompute))
        base = torch.tensor([self.reference[example.row] for example in examples])
        margins = self.beta * (apart - base)
        others = {"accuracy": (margins > 0).sum().item(), "margin": margins.sum().item()}
        return Tally(-F.logsigmoid(margins).sum(), len(examples), others)

    def metrics(self, total: float, count: int, others: Mapping[str, float]) -> dict[str, float]:
        return {"loss": total / count, **{name: value / count for name, value in others.items()}}

    @staticmethod
    def _apart(found: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        preferred, other = torch.stack([part.sum() for part in torch.split(found, lengths)]).view(-1, 2).unbind(1)
        return preferred - other

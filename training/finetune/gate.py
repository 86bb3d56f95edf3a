"""The proof of a fine-tuning: llama.cpp, over the very base and with the adapter as it is kept, says what torch says.

On some validation rows (and rows that were learned, where those are few) llama.cpp answers greedily. Torch, in fp32,
goes over prompt and answer at once and must find each of its tokens the likeliest, or within `tolerance` of it in
logits: then the two say the same but for ties. The tolerance is what the two arithmetics differ by: llama.cpp rounds
what goes into a quantized matrix to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from training.finetune.base_model import Base, Look
from training.finetune.llama import Llama, Ragged, Weights
from training.finetune.lora import Adapter
from training.finetune.rows import Example
from training.finetune.served import NotServed, Served
from training.language.memory_file import MemoryFile
from training.language.structure import majority_type
from training.watching import while_watching

ROWS = 8
ANSWER_TOKENS = 32
PROMPT_TOKENS = 4096  # of all rows together; at least one row is proved however long it is
TOLERANCE = {"F32": 0.05, "F16": 0.1, "BF16": 0.3}  # by the type of most weights
QUANTIZED_TOLERANCE = 1.0


@dataclass(frozen=True, slots=True)
class Proof:
    """`ties`: tokens that torch finds second, within the tolerance; `worst`: by how much at most, in logits."""

    rows: int
    tokens: int
    ties: int
    worst: float
    tolerance: float
    reason: str | None

    @property
    def line(self) -> str:
        if self.reason is not None:
            return self.reason
        return (
            f"llama.cpp, with the adapter over its base, gives torch's greedy tokens: {self.tokens} in {self.rows} "
            f"answers, {self.ties} of them ties (at most {self.worst:.2g} in logits, {self.tolerance:g} allowed)"
        )


def tolerance_of(base: Base) -> float:
    return TOLERANCE.get(majority_type(base.head.tensors), QUANTIZED_TOLERANCE)


def prove(
    base: Base, adapter: Adapter, file: MemoryFile, served: Served, examples: Sequence[Example], look: Look
) -> Proof:
    """On the first of these. `file` is the adapter as it is kept. A failed proof has a reason, in numbers only."""
    tolerance = tolerance_of(base)
    chosen = _chosen(examples)
    prompts = [example.rows[0].tokens[: example.rows[0].prompt].tolist() for example in chosen]
    try:
        while_watching(partial(served.adapt, file), look)
        answers = while_watching(partial(served.greedy, prompts, ANSWER_TOKENS), look)
    except NotServed as refused:
        return Proof(0, 0, 0, 0.0, tolerance, f"parity_failed: {refused.message}")
    gaps = _gaps(base, adapter, prompts, answers, look)
    worst = max((gap for row in gaps for gap in row if math.isfinite(gap)), default=0.0)
    far = [
        (example.row, place, gap)
        for example, row in zip(chosen, gaps, strict=True)
        for place, gap in enumerate(row, 1)
        if not gap <= tolerance  # NaN is not within any
    ]
    reason = None
    if far:
        number, place, gap = far[0]
        reason = (
            f"parity_failed: on row {number} llama.cpp with the adapter says another token than torch at place {place} "
            f"of the answer: {gap:.3g} apart in logits, {tolerance:g} allowed"
        )
    tokens, ties = sum(map(len, gaps)), sum(gap > 0 for row in gaps for gap in row)
    return Proof(len(chosen), tokens, ties, worst, tolerance, reason)


def _chosen(examples: Sequence[Example]) -> list[Example]:
    """The first rows, as many as are quickly proved; the shortest where none is short."""
    chosen: list[Example] = []
    left = PROMPT_TOKENS
    for example in examples:
        if len(chosen) < ROWS and example.rows[0].prompt <= left:
            left -= example.rows[0].prompt
            chosen.append(example)
    return chosen or [min(examples, key=lambda example: example.rows[0].prompt)]


def _gaps(
    base: Base, adapter: Adapter, prompts: Sequence[list[int]], answers: Sequence[list[int]], look: Look
) -> list[list[float]]:
    """How far each token of the answers is behind the likeliest one, in torch's logits."""
    network = Llama(base, Weights(base, torch.float32, keep=False), adapter, look).eval()
    rows = Ragged.of([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    gaps: list[list[float]] = []
    first = 0
    with torch.inference_mode():
        hidden, head = network(rows), network.head
        for prompt, answer in zip(prompts, answers, strict=True):
            look()
            before = first + len(prompt) - 1
            logits = hidden[before : before + len(answer)] @ head.T
            said = logits.gather(1, torch.tensor(answer)[:, None]).squeeze(1)
            gaps.append((logits.max(dim=1).values - said).tolist())
            first += len(prompt) + len(answer)
    return gaps

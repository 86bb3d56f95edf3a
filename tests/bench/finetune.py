"""The step of a fine-tuning of SmolLM2-135M against a bare torch loop over the same rows, and what it learns a second.

The baseline is what one writes for oneself: the same llama over the same dequantized weights, LoRA by two more linear
layers, a padded batch, cross entropy over the whole batch's answers, AdamW; nobody watches it and nothing is kept.
Both run in turn in this process, with as many threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from tests.bench.report import Figure
from tests.training.finetune.given import data, facts, spec
from tests.training.finetune.runs import Witness
from tests.training.language.making import sealed, smollm2
from training.data.chat_jsonl import Conversations
from training.finetune.base_model import Base, open_base
from training.finetune.llama import Llama, Weights
from training.finetune.loop import Tuning
from training.finetune.lora import NAMES, Adapter
from training.finetune.rows import Example, Wording
from training.finetune.served import Served
from training.language.structure import Hyperparameters
from training.loop import Watch
from training.spec import FinetuneSpec

STEPS = 3
TIMES = 3
ROWS = 8
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure() -> Iterator[Figure]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    base = open_base(sealed(smollm2()))
    for precision in PRECISIONS:
        yield from _measured(base, precision)


def _measured(base: Base, precision: str) -> Iterator[Figure]:
    document = spec(train={"batch_size": ROWS, "epochs": 1, "lr": 0.001, "precision": precision})
    weights = Weights(base, PRECISIONS[precision], keep=True)
    weights.read_all()
    examples = _examples(base, data(facts(ROWS * STEPS + 1)))
    tokens = sum(example.size for example in examples[1:])
    runs: dict[str, Callable[[], float]] = {
        "ours": partial(_ours, document, base, weights, examples),
        "bare": partial(_bare, base.hyperparameters, weights, examples[1:]),
    }
    found = _in_turn(runs)
    yield Figure.against(f"fine-tuning in {precision}, tokens", tokens / found["ours"], "1/s", tokens / found["bare"])


def _in_turn(runs: dict[str, Callable[[], float]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TIMES):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: min(times) for name, times in seconds.items()}


def _examples(base: Base, rows: Conversations) -> list[Example]:
    with Served(base.file, threads=1) as served:
        wording = Wording(base, served, served.ends)
        return [wording.example(row) for row in rows.conversations]


def _ours(document: FinetuneSpec, base: Base, weights: Weights, examples: Sequence[Example]) -> float:
    """The whole loop: an epoch, its validation on one row, everybody looking on."""
    adapter = Adapter(document.lora, base.hyperparameters, 0)
    witness = Witness()
    loop = Tuning(
        document,
        adapter=adapter,
        network=partial(Llama, base, weights, adapter),
        learning=examples[1:],
        validating=examples[:1],
        watch=Watch(witness.control, witness.news.append, witness.lines.append, lambda state: None),
        kept_tokens=2**20,
    )
    began = time.perf_counter()
    loop.run()
    return time.perf_counter() - began


# ---- the same, bare


class _Lora(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.precision = weight, weight.dtype
        self.a = nn.Parameter(torch.randn(8, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.b = nn.Parameter(torch.zeros(weight.shape[0], 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a.to(self.precision), self.b.to(self.precision)
        return F.linear(x, self.weight) + 2 * F.linear(F.linear(x, a), b)


class _Bare(nn.Module):
    def __init__(self, shape: Hyperparameters, weights: Weights) -> None:
        super().__init__()
        self.shape, self.weights = shape, weights
        names = [f"blk.{block}.{part}" for block in range(shape.blocks) for part in NAMES.values()]
        self.matrices = nn.ModuleDict({name.replace(".", "_"): _Lora(weights[f"{name}.weight"]) for name in names})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        rows, length = tokens.shape
        shape, width = self.shape, self.shape.head_width
        angles = torch.outer(torch.arange(length), shape.rope_base ** (-torch.arange(0, width, 2) / width))
        cos, sin = angles.cos(), angles.sin()

        def norm(x: torch.Tensor, name: str) -> torch.Tensor:
            return F.rms_norm(x, (shape.width,), self.weights[name], shape.norm_epsilon).to(self.weights.precision)

        def turned(x: torch.Tensor) -> torch.Tensor:
            x0, x1 = x[..., ::2], x[..., 1::2]
            return torch.stack((x0 * cos - x1 * sin, x0 * sin + x1 * cos), -1).flatten(-2).to(x.dtype)

        x = self.weights["token_embd.weight"][tokens].float()
        for block in range(shape.blocks):

            def through(part: str, x: torch.Tensor, block: int = block) -> torch.Tensor:
                found: torch.Tensor = self.matrices[f"blk_{block}_{part}"](x)
                return found

            inner = norm(x, f"blk.{block}.attn_norm.weight")
            query, key, value = (
                through(part, inner).view(rows, length, -1, width).transpose(1, 2)
                for part in ("attn_q", "attn_k", "attn_v")
            )
            answer = F.scaled_dot_product_attention(turned(query), turned(key), value, is_causal=True, enable_gqa=True)
            x = x + through("attn_output", answer.transpose(1, 2).reshape(rows, length, -1))
            inner = norm(x, f"blk.{block}.ffn_norm.weight")
            x = x + through("ffn_down", F.silu(through("ffn_gate", inner)) * through("ffn_up", inner))
        return norm(x, "output_norm.weight")


def _bare(shape: Hyperparameters, weights: Weights, examples: Sequence[Example]) -> float:
    network = _Bare(shape, weights)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=0)
    began = time.perf_counter()
    for first in range(0, len(examples), ROWS):
        rows = [example.rows[0] for example in examples[first : first + ROWS]]
        tokens = torch.zeros(len(rows), max(len(row.tokens) for row in rows), dtype=torch.long)
        counts = torch.zeros(tokens.shape, dtype=torch.bool)
        for place, row in enumerate(rows):
            tokens[place, : len(row.tokens)] = torch.tensor(row.tokens.tolist())
            counts[place, row.places.tolist()] = True
        hidden = network(tokens[:, :-1])[counts[:, 1:]]
        logits = F.linear(hidden, weights["token_embd.weight"]).float()
        F.cross_entropy(logits, tokens[:, 1:][counts[:, 1:]]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began

"""LoRA (Hu et al. 2021): two thin matrices beside a frozen one, and the same as a GGUF file for llama.cpp.

Names and layout are GGUF's throughout, rows of queries and keys included, so that what was learned is written as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from training.finetune.base_model import Look
from training.language import gguf
from training.language.gguf import Field, Tensor
from training.language.memory_file import MemoryFile
from training.language.structure import ARCHITECTURE, Hyperparameters
from training.language.tensor_types import F32
from training.spec.finetune import Lora, Target

NAMES: dict[Target, str] = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


class Adapter(nn.Module):
    """What learns. `a` are rank × in and begin at random, `b` out × rank and zero: at first it changes nothing."""

    def __init__(self, spec: Lora, hyperparameters: Hyperparameters, seed: int) -> None:
        super().__init__()
        self.rank, self.alpha, self.dropout = spec.rank, spec.alpha, spec.dropout
        self.scale = spec.alpha / spec.rank
        shapes = hyperparameters.tensors()
        parts = [NAMES[target] for target in NAMES if target in spec.targets]
        self.names = [f"blk.{block}.{part}" for block in range(hyperparameters.blocks) for part in parts]
        self._places = {name: place for place, name in enumerate(self.names)}
        random = torch.Generator().manual_seed(seed)
        self.a, self.b = nn.ParameterList(), nn.ParameterList()
        for name in self.names:
            inner, outer = shapes[f"{name}.weight"]
            bound = 1 / math.sqrt(inner)  # PEFT's begin
            self.a.append(nn.Parameter(torch.empty(spec.rank, inner).uniform_(-bound, bound, generator=random)))
            self.b.append(nn.Parameter(torch.zeros(outer, spec.rank)))

    def pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Both matrices beside the base's tensor of this name, None where it is no target."""
        place = self._places.get(name)
        return None if place is None else (self.a[place], self.b[place])

    @property
    def weights(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def projected(x: torch.Tensor, weight: torch.Tensor, adapter: Adapter | None, name: str, look: Look) -> torch.Tensor:
    """x through the frozen matrix, and through the adapter beside it where there is one."""
    pair = None if adapter is None else adapter.pair(name)
    if adapter is None or pair is None:
        look()
        return nn.functional.linear(x, weight)
    dropped = x
    if adapter.training and adapter.dropout:
        dropped = nn.functional.dropout(x, adapter.dropout)
    found: torch.Tensor = _Projection.apply(x, dropped, weight, *pair, adapter.scale, look)  # type: ignore[no-untyped-call]  # torch's own
    return found


class _Projection(torch.autograd.Function):
    """x·Wᵀ + scale·(x·Aᵀ)·Bᵀ without a gradient of W, and with a look at what is wanted on the way there and back.

    By hand, the sums are made in place: 5 % of a step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor,
        weight: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        look: Look,
    ) -> torch.Tensor:
        look()
        a, b = a.to(x.dtype), b.to(x.dtype)
        thin = dropped @ a.T
        ctx.save_for_backward(dropped, thin, a, b)
        ctx.weight, ctx.scale, ctx.look, ctx.is_dropped = weight, scale, look, dropped is not x
        return (x @ weight.T).addmm_(thin, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.look()
        (gradient,) = gradients
        dropped, thin, a, b = ctx.saved_tensors
        back = (gradient @ b).mul_(ctx.scale)
        of_x = gradient @ ctx.weight if ctx.needs_input_grad[0] else None
        of_dropped = back @ a if ctx.is_dropped and ctx.needs_input_grad[1] else None
        if of_x is not None and not ctx.is_dropped:
            of_x.addmm_(back, a)
        of_a, of_b = (back.T @ dropped).float(), (gradient.T @ thin).float().mul_(ctx.scale)
        return of_x, of_dropped, None, of_a, of_b, None, None


def written(adapter: Adapter, name: str) -> tuple[MemoryFile, Sequence[Tensor]]:
    """The adapter as llama.cpp loads it, and its table."""
    fields = {
        "general.architecture": Field("text", ARCHITECTURE),
        "general.type": Field("text", "adapter"),
        "general.name": Field("text", name),
        "adapter.type": Field("text", "lora"),
        "adapter.lora.alpha": Field("f32", adapter.alpha),
    }
    parts = [
        (f"{name}.weight.lora_{which}", parameter.detach())
        for name, pair in zip(adapter.names, zip(adapter.a, adapter.b, strict=True), strict=True)
        for which, parameter in zip("ab", pair, strict=True)
    ]
    file = MemoryFile()
    table = [Tensor(name, tuple(reversed(values.shape)), F32) for name, values in parts]
    writer = gguf.Writer(file.write, fields, table)
    for _, values in parts:
        writer.data(values.contiguous().numpy().astype("<f4", copy=False).tobytes())
    writer.close()
    file.seal()
    return file, writer.tensors

"""A llama in plain torch over the dequantized weights of a GGUF file: what llama.cpp computes, and gradients of it.

Rows of different lengths lie one behind the other: every matrix sees all their tokens at once, attention each row by
itself, and nothing is padded. Knows no text and no loss; heads share keys and values, the rope turns pairs that lie
side by side, as GGUF keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from training.finetune.base_model import Base, Look
from training.finetune.lora import Adapter, projected
from training.language.weights import dequantized


@dataclass(frozen=True, slots=True)
class Ragged:
    """The tokens of some rows, one row behind the other, and how many are whose."""

    tokens: torch.Tensor
    lengths: list[int]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        joined = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
        return cls(torch.from_numpy(joined), [len(row) for row in rows])


class Weights:
    """The base's tensors: matrices in the type that is computed in, norms in fp32. Kept, or read at each asking."""

    def __init__(self, base: Base, precision: torch.dtype, *, keep: bool) -> None:
        self.precision = precision
        self._file = base.file
        self._table = {tensor.name: tensor for tensor in base.head.tensors}
        self._kept: dict[str, torch.Tensor] | None = {} if keep else None

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._kept is None:
            return self._read(name)
        if name not in self._kept:
            self._kept[name] = self._read(name)
        return self._kept[name]

    def read_all(self) -> None:
        for name in self._table:
            self[name]

    def _read(self, name: str) -> torch.Tensor:
        tensor = self._table[name]
        stored = self._file.read(tensor.offset, tensor.size_bytes)
        rows = dequantized(stored, tensor.type, tensor.shape[0])
        floats = torch.from_numpy(rows if rows.flags.writeable else rows.copy()).reshape(tensor.shape[::-1])
        return floats if floats.dim() == 1 else floats.to(self.precision)


class Llama(nn.Module):
    """The network. `look` is called before each matrix, there and back, and raises to end it."""

    def __init__(self, base: Base, weights: Weights, adapter: Adapter | None, look: Look) -> None:
        super().__init__()
        self.hyperparameters = base.hyperparameters
        self.weights, self.adapter, self.look = weights, adapter, look
        self._blocks = [f"blk.{block}." for block in range(self.hyperparameters.blocks)]
        self._head = "token_embd.weight" if base.is_tied else "output.weight"
        self._frequencies = self._rope(base.rope_scale)

    @property
    def head(self) -> torch.Tensor:
        """From what `forward` gives to the logits: vocabulary × width."""
        return self.weights[self._head]

    def forward(self, rows: Ragged, *, adapted: bool = True, recompute: bool = False) -> torch.Tensor:
        """Behind the last norm, a line a token. `recompute` keeps a block's input only and computes it twice."""
        adapter = self.adapter if adapted else None
        angles = torch.cat([torch.arange(length) for length in rows.lengths])[:, None, None] * self._frequencies
        turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        x = self.weights["token_embd.weight"][rows.tokens].float()
        for block in self._blocks:
            through = partial(self._block, block=block, turns=turns, lengths=rows.lengths, adapter=adapter)
            x = checkpoint(through, x, use_reentrant=False) if recompute else through(x)
        return self._norm(x, "output_norm")

    def _block(
        self, x: torch.Tensor, *, block: str, turns: torch.Tensor, lengths: list[int], adapter: Adapter | None
    ) -> torch.Tensor:
        def project(part: str, inner: torch.Tensor) -> torch.Tensor:
            name = block + part
            return projected(inner, self.weights[name + ".weight"], adapter, name, self.look)

        inner = self._norm(x, block + "attn_norm")
        width = self.hyperparameters.head_width
        query, key, value = (project(part, inner).view(len(x), -1, width) for part in ("attn_q", "attn_k", "attn_v"))
        found = _attended(_turned(query, turns), _turned(key, turns), value.float(), lengths)
        x = x + project("attn_output", found.to(inner.dtype))
        inner = self._norm(x, block + "ffn_norm")
        return x + project("ffn_down", F.silu(project("ffn_gate", inner)) * project("ffn_up", inner))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self.weights[name + ".weight"]
        return F.rms_norm(x, weight.shape, weight, self.hyperparameters.norm_epsilon).to(self.weights.precision)

    def _rope(self, scale: float) -> torch.Tensor:
        """By how much each pair of a head turns from one place to the next."""
        width = self.hyperparameters.head_width
        steps = torch.arange(0, width, 2, dtype=torch.float64) / width
        frequencies = scale * self.hyperparameters.rope_base**-steps
        if "rope_freqs.weight" in self.weights:  # llama 3's longer context
            frequencies = frequencies / self.weights["rope_freqs.weight"]
        return frequencies


def _turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Tokens × heads × width, each pair turned by its place."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def _attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Each row by itself, in fp32: torch's kernel for bf16 takes four times as long on the way back."""
    found = []
    for one in zip(*(torch.split(each, lengths) for each in (query, key, value)), strict=True):
        asked, keys, values = (each.transpose(0, 1).unsqueeze(0) for each in one)
        answer = F.scaled_dot_product_attention(asked, keys, values, is_causal=True, enable_gqa=True)
        found.append(answer.squeeze(0).transpose(0, 1))
    return torch.cat(found).flatten(1)

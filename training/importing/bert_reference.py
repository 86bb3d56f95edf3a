"""The encoder once more, in plain PyTorch: what the graph must answer. It shares no operator with bert_graph.py.

Knows tensors by name, in PyTorch's own orientation, and nothing of ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from training.importing.bert import POSITIONS, WORDS, Config, Pooling

Tensors = Mapping[str, torch.Tensor]


def embed(tensors: Tensors, config: Config, pooling: Pooling, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1; the positions hold the type's vector already."""
    with torch.inference_mode():
        hidden = functional.embedding(ids, tensors[WORDS]) + tensors[POSITIONS][: ids.shape[1]]
        hidden = _normal(tensors, config, hidden, "embeddings.LayerNorm")
        for number in range(config.layers):
            hidden = _layer(tensors, config, hidden, mask.bool()[:, None, None, :], f"encoder.layer.{number}")
        if pooling == "cls":
            pooled = hidden[:, 0]
        else:
            counted = mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * counted).sum(1) / counted.sum(1).clamp(min=1e-9)
        return functional.normalize(pooled, dim=-1)


def _layer(tensors: Tensors, config: Config, hidden: torch.Tensor, seen: torch.Tensor, layer: str) -> torch.Tensor:
    batch, tokens, width = hidden.shape
    query, key, value = (
        _linear(tensors, hidden, f"{layer}.attention.self.{part}")
        .view(batch, tokens, config.heads, config.head_width)
        .transpose(1, 2)
        for part in ("query", "key", "value")
    )
    looked = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    looked = _linear(tensors, looked.transpose(1, 2).reshape(batch, tokens, width), f"{layer}.attention.output.dense")
    hidden = _normal(tensors, config, looked + hidden, f"{layer}.attention.output.LayerNorm")
    inner = _activated(config, _linear(tensors, hidden, f"{layer}.intermediate.dense"))
    return _normal(
        tensors, config, _linear(tensors, inner, f"{layer}.output.dense") + hidden, f"{layer}.output.LayerNorm"
    )


def _linear(tensors: Tensors, value: torch.Tensor, name: str) -> torch.Tensor:
    return functional.linear(value, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _normal(tensors: Tensors, config: Config, value: torch.Tensor, name: str) -> torch.Tensor:
    return functional.layer_norm(
        value, (config.width,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], config.epsilon
    )


def _activated(config: Config, value: torch.Tensor) -> torch.Tensor:
    if config.activation == "relu":
        return functional.relu(value)
    return functional.gelu(value, approximate="none" if config.activation == "gelu" else "tanh")

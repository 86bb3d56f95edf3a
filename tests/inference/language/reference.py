"""What the tiny model says of a text, computed plainly in float64: the measure of everything that the engine does to be
quick. One pass over the whole text, no cache, no batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from tests.inference.language import tiny
from training.language.gguf import read_head

Array = npt.NDArray[np.float64]
# Keys and values are kept in half precision, and so is the sum over them in one of llama.cpp's ways to compute it.
TOLERANCE = 0.15


def arrays(content: bytes) -> dict[str, Array]:
    """The tensors of a file of type F32."""
    head = read_head(lambda at, count: content[at : at + count], len(content))
    found = {}
    for tensor in head.tensors:
        values = np.frombuffer(content, "<f4", tensor.weights, tensor.offset)
        found[tensor.name.removesuffix(".weight")] = values.reshape(tensor.shape[::-1]).astype("f8")
    return found


@cache
def weights(adapter: bytes | None = None) -> dict[str, Array]:
    """Of the tiny model, with what an adapter adds."""
    found = arrays(tiny.gguf("F32"))
    if adapter is not None:
        added = arrays(adapter)
        for name in [name.removesuffix(".weight.lora_a") for name in added if name.endswith(".lora_a")]:
            change = added[f"{name}.weight.lora_b"] @ added[f"{name}.weight.lora_a"]
            found[name] = found[name] + tiny.ADAPTER_SCALE * change
    return found


def logprobs(tokens: Sequence[int], adapter: bytes | None = None) -> Array:
    """After each token: the log-probability of each that may come next."""
    with threadpool_limits(1):  # on a busy machine a second thread costs ten times what it brings
        return _logprobs(tokens, adapter)


def _logprobs(tokens: Sequence[int], adapter: bytes | None) -> Array:
    w, heads, width = weights(adapter), tiny.HEADS, tiny.HEAD_WIDTH
    x, count = w["token_embd"][list(tokens)], len(tokens)
    angles = np.outer(np.arange(count), 10_000.0 ** (-np.arange(0, width, 2) / width))
    hidden = np.triu(np.full((count, count), -np.inf), 1)
    for block in range(tiny.BLOCKS):
        get = lambda name, block=block: w[f"blk.{block}.{name}"]  # noqa: E731  # one block's tensors
        h = _norm(x)
        q, k, v = ((h @ get(f"attn_{name}").T).reshape(count, -1, width).transpose(1, 0, 2) for name in ("q", "k", "v"))
        q, k = _turned(q, angles), _turned(k, angles)
        k, v = (np.repeat(one, heads // tiny.KEY_VALUE_HEADS, axis=0) for one in (k, v))
        seen = _softmax(q @ k.transpose(0, 2, 1) / np.sqrt(width) + hidden) @ v
        x = x + seen.transpose(1, 0, 2).reshape(count, -1) @ get("attn_output").T
        h = _norm(x)
        gate = h @ get("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ get("ffn_up").T)) @ get("ffn_down").T
    logits = _norm(x) @ w["output"].T
    result: Array = logits - _log_sum(logits)
    return result


def _norm(x: Array) -> Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)


def _turned(x: Array, angles: Array) -> Array:
    """Rotary positions, of neighbouring pairs."""
    turned = np.empty_like(x)
    even, odd, cosine, sine = x[..., ::2], x[..., 1::2], np.cos(angles), np.sin(angles)
    turned[..., ::2], turned[..., 1::2] = even * cosine - odd * sine, even * sine + odd * cosine
    return turned


def _softmax(x: Array) -> Array:
    shares: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def _log_sum(x: Array) -> Any:
    highest = x.max(axis=-1, keepdims=True)
    return highest + np.log(np.exp(x - highest).sum(axis=-1, keepdims=True))

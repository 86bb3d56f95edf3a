"""config.json of a LlamaForCausalLM: the numbers that GGUF has too, and a refusal of whatever changes the mathematics.

transformers ignores keys that it does not know, and so does this; the keys of its Llama are all here.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.archive import shown
from training.errors import ImportRefused
from training.language import structure
from training.language.structure import Hyperparameters

ARCHITECTURE = "LlamaForCausalLM"
Json = dict[str, Any]
_PLAIN = {  # keys that change what is computed, and the values that change nothing
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "hidden_act": ("silu", None),
    "partial_rotary_factor": (1, 1.0, None),
    "rope_interleaved": (False, None),
    "quantization_config": (None,),
    "num_local_experts": (None, 0),
    "sliding_window": (None,),
    "layer_types": (None,),
}


@dataclass(frozen=True, slots=True)
class Config:
    """What the conversion needs of it."""

    hyperparameters: Hyperparameters
    is_tied: bool
    rope_factors: NDArray[np.float32] | None  # llama 3's, for rope_freqs.weight


def read(config: Json) -> Config:
    """ImportRefused names the first key that asks for more than a llama."""
    architectures = config.get("architectures")
    if architectures != [ARCHITECTURE]:
        raise ImportRefused(
            f"config.json has the architectures {shown(str(architectures))}",
            f"{ARCHITECTURE} is taken in",
            code="architecture_unknown",
        )
    for key, values in _PLAIN.items():
        if config.get(key) not in values:
            raise _refused(f"config.json asks for {key} = {shown(str(config[key]))}", "models without it are taken in")
    rope = _rope(config)
    found = _hyperparameters(config, _number(rope, "rope_theta", 10_000.0))
    structure.check_bounds(found)
    return Config(
        hyperparameters=found,
        is_tied=bool(config.get("tie_word_embeddings", False)),
        rope_factors=_factors(rope, found),
    )


def _refused(problem: str, hint: str, code: str = "config_unsupported") -> ImportRefused:
    return ImportRefused(problem, hint, code=code)


def _hyperparameters(config: Json, rope_base: float) -> Hyperparameters:
    heads, width = _count(config, "num_attention_heads"), _count(config, "hidden_size")
    return Hyperparameters(
        blocks=_count(config, "num_hidden_layers"),
        width=width,
        feed_forward=_count(config, "intermediate_size"),
        heads=heads,
        key_value_heads=_count(config, "num_key_value_heads", heads),
        head_width=_count(config, "head_dim", width // heads if heads else 0),
        context_length=_count(config, "max_position_embeddings"),
        vocabulary=_count(config, "vocab_size"),
        norm_epsilon=_number(config, "rms_norm_eps"),
        rope_base=rope_base,
    )


def _rope(config: Json) -> Json:
    """rope_theta and the scaling, in the old writing and in that of transformers 5."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise _refused("the rope's parameters in config.json are no object", "upload it as it was published")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise _refused(
            f"the rope is scaled by {shown(str(kind))}", "default and llama3 are taken in", "rope_scaling_unknown"
        )
    return (
        {"rope_theta": config.get("rope_theta"), "rope_type": kind}
        | {key: value for key, value in scaling.items() if value is not None}
        | {"rope_type": kind}
    )


def _factors(rope: Json, found: Hyperparameters) -> NDArray[np.float32] | None:
    """By how much each frequency is divided: none of the high ones, the low ones by the whole factor, smoothly between.

    Llama 3.1's own code: github.com/meta-llama/llama-models, apply_scaling.
    """
    if rope["rope_type"] != "llama3":
        return None
    factor, low, high = (_number(rope, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = _number(rope, "original_max_position_embeddings")
    if not (1 <= factor <= 1e6 and 0 < low < high <= 1e6 and 1 <= context <= structure.MOST_CONTEXT):
        raise _refused("the factors of the rope's scaling contradict each other", "upload config.json as published")
    steps = np.arange(0, found.head_width, 2, dtype=np.float32) / np.float32(found.head_width)
    lengths = 2 * math.pi * np.float32(found.rope_base) ** steps  # of each frequency's wave
    smooth = np.clip((context / lengths - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def _count(config: Json, key: str, otherwise: int | None = None) -> int:
    value = config.get(key)
    if value is None and otherwise is not None:
        return otherwise
    if type(value) is not int or not 0 <= value < 2**31:
        raise _refused(
            f"{key} in config.json is {shown(str(value))}", "upload it as it was published", "config_invalid"
        )
    return value


def _number(config: Json, key: str, otherwise: float | None = None) -> float:
    value = config.get(key)
    if value is None and otherwise is not None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise _refused(
            f"{key} in config.json is {shown(str(value))}", "upload it as it was published", "config_invalid"
        )
    return float(value)

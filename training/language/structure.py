"""What a GGUF file must be to be served as a language model: llama's hyperparameters, and exactly its tensors.

llama.cpp ends its process over many contradictions between the two, so each is looked for here first. Reads the head
only; the data is trial.py's, the vocabulary vocabulary.py's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.archive import shown
from training.language.gguf import Field, Head, Tensor, refused
from training.language.tensor_types import F32

ARCHITECTURE = "llama"
MOST_BLOCKS = 512  # llama.cpp's own bound
MOST_WIDTH = 2**17
MOST_CONTEXT = 2**24
MATRIX_TYPES = frozenset(
    (
        *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
    )
)
_AGAIN = "convert the model again with llama.cpp's own tools"
_SCALING = ("none", "linear", "yarn")
# What llama.cpp reads for this architecture and a served model may say. Another key could change what is computed.
_KEYS = frozenset(
    f"{ARCHITECTURE}.{name}"
    for name in (
        *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scale_linear"),
        *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
        *("rope.scaling.finetuned", "rope.scaling.attn_factor", "expert_count", "expert_used_count"),
    )
)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The numbers that say what a llama is."""

    blocks: int
    width: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_width: int
    context_length: int
    vocabulary: int
    norm_epsilon: float
    rope_base: float = 10_000.0

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that must be there, and its shape as GGUF writes it."""
        inner, keys = self.heads * self.head_width, self.key_value_heads * self.head_width
        found: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.width, self.vocabulary),
            "output_norm.weight": (self.width,),
        }
        for block in range(self.blocks):
            found |= {
                f"blk.{block}.attn_norm.weight": (self.width,),
                f"blk.{block}.attn_q.weight": (self.width, inner),
                f"blk.{block}.attn_k.weight": (self.width, keys),
                f"blk.{block}.attn_v.weight": (self.width, keys),
                f"blk.{block}.attn_output.weight": (inner, self.width),
                f"blk.{block}.ffn_norm.weight": (self.width,),
                f"blk.{block}.ffn_gate.weight": (self.width, self.feed_forward),
                f"blk.{block}.ffn_up.weight": (self.width, self.feed_forward),
                f"blk.{block}.ffn_down.weight": (self.feed_forward, self.width),
            }
        return found

    def optional_tensors(self) -> dict[str, tuple[int, ...]]:
        """A head of its own instead of the embedding's, and the factors of llama 3's longer context."""
        return {"output.weight": (self.width, self.vocabulary), "rope_freqs.weight": (self.head_width // 2,)}


def check(head: Head, tokens: int) -> Hyperparameters:
    """The model's numbers, after every rule; `tokens` is the length of its vocabulary."""
    check_kind(head.fields)
    hyperparameters = _hyperparameters(head.fields, tokens)
    check_bounds(hyperparameters)
    _check_scaling(head.fields)
    _check_tensors(head.tensors, hyperparameters)
    return hyperparameters


def is_matrix(tensor: Tensor) -> bool:
    return len(tensor.shape) > 1


def parameters(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.weights for tensor in tensors if tensor.name != "rope_freqs.weight")


def majority_type(tensors: Sequence[Tensor]) -> str:
    """The type that most weights have."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        counts[tensor.type.name] = counts.get(tensor.type.name, 0) + tensor.weights
    return max(counts, key=lambda name: counts[name])


def check_kind(fields: Mapping[str, Field]) -> None:
    """A whole model, of this architecture, that asks for nothing else."""
    architecture = _text(fields, "general.architecture", "")
    kind = _text(fields, "general.type", "model")
    if kind != "model":
        raise refused("gguf_kind", f"the file is of the kind {shown(kind)}", "upload the model itself")
    if architecture != ARCHITECTURE:
        raise refused(
            "architecture_unknown",
            f"the architecture is {shown(architecture)}",
            "models of the architecture llama are served",
        )
    if fields.get("split.count", Field("u16", 1)).value not in (0, 1):
        raise refused("gguf_split", "the file is one of several", "join them: llama-gguf-split --merge")
    for key in fields:
        if key.startswith(f"{ARCHITECTURE}.") and key not in _KEYS:
            raise refused("hyperparameter_unknown", f"the key {shown(key)} asks for what is not served", _AGAIN)
    if _count(fields, "expert_count", 0) or _count(fields, "expert_used_count", 0):
        raise refused("architecture_unknown", "the model is a mixture of experts", "models without experts are served")


def _hyperparameters(fields: Mapping[str, Field], tokens: int) -> Hyperparameters:
    heads = _count(fields, "attention.head_count")
    width = _count(fields, "embedding_length")
    head_width = _count(fields, "attention.key_length", width // heads if heads else 0)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (value := _count(fields, key, head_width)) != head_width:
            raise refused("hyperparameters", f"{ARCHITECTURE}.{key} is {value}, a head is {head_width} wide", _AGAIN)
    vocabulary = _count(fields, "vocab_size", tokens)
    if vocabulary != tokens:
        raise refused(
            "hyperparameters", f"{ARCHITECTURE}.vocab_size is {vocabulary}, there are {tokens} tokens", _AGAIN
        )
    return Hyperparameters(
        blocks=_count(fields, "block_count"),
        width=width,
        feed_forward=_count(fields, "feed_forward_length"),
        heads=heads,
        key_value_heads=_count(fields, "attention.head_count_kv", heads),
        head_width=head_width,
        context_length=_count(fields, "context_length"),
        vocabulary=vocabulary,
        norm_epsilon=_number(fields, "attention.layer_norm_rms_epsilon"),
        rope_base=_number(fields, "rope.freq_base", 10_000.0),
    )


def check_bounds(found: Hyperparameters) -> None:
    """What llama.cpp asserts, and what keeps a number from asking for memory that no file has."""
    bounds = (
        ("the number of blocks", found.blocks, MOST_BLOCKS),
        ("the width", found.width, MOST_WIDTH),
        ("the width of the feed-forward part", found.feed_forward, MOST_WIDTH * 8),
        ("the number of heads", found.heads, 1024),
        ("the number of key and value heads", found.key_value_heads, found.heads),
        ("the width of a head", found.head_width, 1024),
        ("the context length", found.context_length, MOST_CONTEXT),
    )
    for what, value, most in bounds:
        if not 1 <= value <= most:
            raise refused("hyperparameters", f"{what} is {value}; 1 to {most} are served", _AGAIN)
    if found.heads % found.key_value_heads:
        raise refused(
            "hyperparameters", f"{found.heads} heads share {found.key_value_heads} of keys and values", _AGAIN
        )
    if found.head_width % 2:
        raise refused("hyperparameters", f"a head is {found.head_width} wide, which is odd", _AGAIN)
    if not 0 < found.norm_epsilon < 1:
        raise refused("hyperparameters", f"the norm's epsilon is {found.norm_epsilon}", _AGAIN)
    if not 1 <= found.rope_base <= 1e12:
        raise refused("hyperparameters", f"the rope's base is {found.rope_base}", _AGAIN)


def _check_scaling(fields: Mapping[str, Field]) -> None:
    kind = _text(fields, f"{ARCHITECTURE}.rope.scaling.type", "none")
    if kind not in _SCALING:
        raise refused(
            "rope_scaling_unknown", f"the rope is scaled by {shown(kind)}", f"{', '.join(_SCALING)} are served"
        )
    for key in ("rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor"):
        if not 0 <= _number(fields, key, 1.0) <= 1e6:
            raise refused("hyperparameters", f"{ARCHITECTURE}.{key} is {_number(fields, key)}", _AGAIN)
    _count(fields, "rope.scaling.original_context_length", 0)


def _check_tensors(tensors: Sequence[Tensor], hyperparameters: Hyperparameters) -> None:
    required, optional = hyperparameters.tensors(), hyperparameters.optional_tensors()
    found = {tensor.name: tensor for tensor in tensors}
    for name in required:
        if name not in found:
            raise refused("tensor_missing", f"tensor {shown(name)} is missing", _AGAIN)
    for name, tensor in found.items():
        shape = required.get(name) or optional.get(name)
        if shape is None:
            raise refused("tensor_unknown", f"tensor {shown(name)} is none of a llama's", _AGAIN)
        if tensor.shape != shape:
            raise refused(
                "tensor_shape", f"tensor {shown(name)} has the shape {list(tensor.shape)}, not {list(shape)}", _AGAIN
            )
        if tensor.type.name not in MATRIX_TYPES or (not is_matrix(tensor) and tensor.type != F32):
            served = ", ".join(sorted(MATRIX_TYPES)) if is_matrix(tensor) else F32.name
            raise refused("tensor_type", f"tensor {shown(name)} is {tensor.type.name}", f"{served} is served")


def _text(fields: Mapping[str, Field], key: str, otherwise: str) -> str:
    field = fields.get(key, Field("text", otherwise))
    if field.kind != "text":
        raise refused("hyperparameters", f"{key} is {field.kind}, not text", _AGAIN)
    return str(field.value)


def _count(fields: Mapping[str, Field], name: str, otherwise: int | None = None) -> int:
    value: int = _value(fields, name, "u32", otherwise)
    return value


def _number(fields: Mapping[str, Field], name: str, otherwise: float | None = None) -> float:
    value: float = _value(fields, name, "f32", otherwise)
    if not math.isfinite(value):
        raise refused("hyperparameters", f"{ARCHITECTURE}.{name} is {value}", _AGAIN)
    return value


def _value(fields: Mapping[str, Field], name: str, kind: str, otherwise: Any) -> Any:
    """One value, of the one type that llama.cpp takes."""
    key = f"{ARCHITECTURE}.{name}"
    field = fields.get(key)
    if field is None and otherwise is not None:
        return otherwise
    if field is None or field.kind != kind:
        problem = f"{key} is missing" if field is None else f"{key} is {field.kind}, not {kind}"
        raise refused("hyperparameters", problem, _AGAIN)
    return field.value

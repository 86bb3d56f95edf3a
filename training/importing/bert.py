"""What a BERT encoder's config.json says, and the tensors that follow from it.

Knows names, shapes and bounds, and says why something is no encoder of this kind; bert_graph.py makes the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from training.data.archive import shown
from training.errors import ImportRefused

ARCHITECTURES = ("BertModel", "BertForMaskedLM")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
_BOUNDS = {
    "hidden_size": 16_384,
    "num_hidden_layers": 128,
    "num_attention_heads": 256,
    "intermediate_size": 131_072,
    "vocab_size": 2_000_000,
    "max_position_embeddings": 131_072,
    "type_vocab_size": 64,
}
Pooling = Literal["mean", "cls"]
WORDS, POSITIONS, TYPES = (f"embeddings.{one}_embeddings.weight" for one in ("word", "position", "token_type"))


@dataclass(frozen=True, slots=True)
class Config:
    """config.json, as far as the graph depends on it."""

    width: int
    layers: int
    heads: int
    inner: int
    words: int
    positions: int
    types: int
    epsilon: float
    activation: str

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Config:
        """ImportRefused names what is not an encoder of this kind."""
        _check_kind(document)
        sizes = [_size(document, key, most) for key, most in _BOUNDS.items()]
        epsilon = document.get("layer_norm_eps", 1e-12)
        if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
            raise _refused(f"layer_norm_eps is {epsilon!r:.40}")
        width, layers, heads, inner, words, positions, types = sizes
        if width % heads:
            raise _refused(f"hidden_size {width} is no multiple of num_attention_heads {heads}")
        return cls(width, layers, heads, inner, words, positions, types, float(epsilon), str(document["hidden_act"]))

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the file that the graph needs, as PyTorch has it: a linear layer's rows are its outputs."""
        width, inner = self.width, self.inner
        shapes: dict[str, tuple[int, ...]] = {
            WORDS: (self.words, width),
            POSITIONS: (self.positions, width),
            TYPES: (self.types, width),
            **_normal("embeddings.LayerNorm", width),
        }
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                shapes |= _linear(f"{layer}.attention.{part}", width, width)
            shapes |= _normal(f"{layer}.attention.output.LayerNorm", width)
            shapes |= _linear(f"{layer}.intermediate.dense", inner, width) | _linear(
                f"{layer}.output.dense", width, inner
            )
            shapes |= _normal(f"{layer}.output.LayerNorm", width)
        return shapes

    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes().values())


def is_linear(name: str) -> bool:
    """Whether it multiplies from the right in the graph, and so is stored with its axes exchanged."""
    return name.endswith(".weight") and "LayerNorm" not in name and not name.startswith("embeddings.")


def _normal(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _check_kind(document: Mapping[str, Any]) -> None:
    architectures = document.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1 or architectures[0] not in ARCHITECTURES:
        raise ImportRefused(
            f"the architecture is {shown(str(architectures))}",
            f"encoders of {' and '.join(ARCHITECTURES)} are taken in; export others to ONNX",
            code="encoder_architecture",
        )
    if document.get("hidden_act") not in ACTIVATIONS:
        raise _refused(f"hidden_act is {shown(str(document.get('hidden_act')))}")
    if document.get("position_embedding_type", "absolute") != "absolute":
        raise _refused(f"position_embedding_type is {shown(str(document['position_embedding_type']))}")
    for key in ("is_decoder", "add_cross_attention"):
        if document.get(key):
            raise _refused(f"{key} is set")


def _size(document: Mapping[str, Any], key: str, most: int) -> int:
    value = document.get(key)
    if type(value) is not int or not 1 <= value <= most:
        raise _refused(f"{key} is {shown(str(value))}, not 1 to {most}")
    return value


def _refused(problem: str) -> ImportRefused:
    return ImportRefused(
        f"config.json describes no encoder that is served: {problem}",
        "export the model to ONNX with its pooling and import that",
        code="encoder_config",
    )

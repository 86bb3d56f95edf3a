"""A BERT encoder as an ONNX graph: token ids and a mask in, one vector of length 1 a text out.

Pooling and normalisation are inside; operators of ai.onnx only. Knows how the tensors follow each other; the numbers
lie in weights.py's memory. The residual Add and the LayerNormalization stay two operators at run time too: ONNX
Runtime's SkipLayerNormalization, which it takes where it knows both shapes to be the same, is 15 to 20 % slower here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.importing.bert import POSITIONS, WORDS, Config, Pooling, is_linear
from training.importing.weights import Place, point

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
OPSET, IR_VERSION = 20, 10
MASKED = -10_000.0  # e to this is 0 in FP32
_ACTIVATIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


@dataclass(slots=True)
class _Graph:
    """Nodes and initializers as they come to be; each value has one name."""

    places: Mapping[str, Place]
    shapes: Mapping[str, tuple[int, ...]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"value {len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def weights(self, name: str) -> str:
        """A tensor of the file: float, outside the graph."""
        shape = self.shapes[name]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape[::-1] if is_linear(name) else shape)
        point(tensor, self.places[name])
        self.initializers[name] = tensor
        return name

    def whole(self, *values: int) -> str:
        return self._small(f"whole {values}", np.array(values, dtype=np.int64))

    def index(self, value: int) -> str:
        return self._small(f"index {value}", np.array(value, dtype=np.int64))

    def number(self, value: float) -> str:
        return self._small(f"number {value!r}", np.array(value, dtype=np.float32))

    def _small(self, name: str, values: Any) -> str:
        self.initializers[name] = numpy_helper.from_array(values, name)
        return name

    def linear(self, value: str, name: str) -> str:
        product = self.node("MatMul", value, self.weights(f"{name}.weight"))
        return self.node("Add", product, self.weights(f"{name}.bias"))

    def normal(self, value: str, name: str, epsilon: float) -> str:
        scale, bias = self.weights(f"{name}.weight"), self.weights(f"{name}.bias")
        return self.node("LayerNormalization", value, scale, bias, axis=-1, epsilon=epsilon)


def graph(config: Config, pooling: Pooling, places: Mapping[str, Place]) -> onnx.ModelProto:
    """The encoder; `places` says where each tensor of `shapes` but the types lies (they are added to the positions)."""
    made = _Graph(places, config.shapes())
    hidden, mask = _embedded(made, config), _mask(made)
    for number in range(config.layers):
        layer = f"encoder.layer.{number}"
        seen = made.linear(
            _attended(made, config, hidden, mask, f"{layer}.attention.self"), f"{layer}.attention.output.dense"
        )
        hidden = made.normal(made.node("Add", seen, hidden), f"{layer}.attention.output.LayerNorm", config.epsilon)
        inner = _activated(made, config, made.linear(hidden, f"{layer}.intermediate.dense"))
        outer = made.linear(inner, f"{layer}.output.dense")
        hidden = made.normal(made.node("Add", outer, hidden), f"{layer}.output.LayerNorm", config.epsilon)
    made.node("LpNormalization", _pooled(made, pooling, hidden), output=OUTPUT, axis=-1, p=2)
    described = helper.make_graph(
        made.nodes,
        "strongroom",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", config.width])],
        list(made.initializers.values()),
    )
    return helper.make_model(described, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _embedded(made: _Graph, config: Config) -> str:
    words = made.node("Gather", made.weights(WORDS), INPUTS[0])
    tokens = made.node("Slice", made.node("Shape", INPUTS[0]), made.whole(1), made.whole(2))
    positions = made.node("Slice", made.weights(POSITIONS), made.whole(0), tokens)
    return made.normal(made.node("Add", words, positions), "embeddings.LayerNorm", config.epsilon)


def _mask(made: _Graph) -> str:
    """0 where a token may be looked at and a large negative number where not, for every head and every token."""
    seen = made.node("Cast", made.node("Unsqueeze", INPUTS[1], made.whole(1, 2)), to=TensorProto.FLOAT)
    return made.node("Mul", made.node("Sub", made.number(1.0), seen), made.number(MASKED))


def _attended(made: _Graph, config: Config, hidden: str, mask: str, name: str) -> str:
    """The written-out form, which ONNX Runtime joins as it likes: its scale goes into the product."""
    split = made.whole(0, 0, config.heads, config.head_width)

    def part(which: str, order: list[int]) -> str:
        return made.node("Transpose", made.node("Reshape", made.linear(hidden, f"{name}.{which}"), split), perm=order)

    product = made.node("MatMul", part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1]))
    scores = made.node("Div", product, made.number(math.sqrt(config.head_width)))
    shares = made.node("Softmax", made.node("Add", scores, mask), axis=3)
    joined = made.node("Transpose", made.node("MatMul", shares, part("value", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return made.node("Reshape", joined, made.whole(0, 0, config.width))


def _activated(made: _Graph, config: Config, value: str) -> str:
    operator, attributes = _ACTIVATIONS[config.activation]
    return made.node(operator, value, **attributes)


def _pooled(made: _Graph, pooling: Pooling, hidden: str) -> str:
    """The first token's vector, or the sum of all that count: the mean has the same direction."""
    if pooling == "cls":
        return made.node("Gather", hidden, made.index(0), axis=1)
    weights = made.node("Unsqueeze", made.node("Cast", INPUTS[1], to=TensorProto.FLOAT), made.whole(1))
    return made.node("Squeeze", made.node("MatMul", weights, hidden), made.whole(1))

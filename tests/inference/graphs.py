"""Small ONNX graphs made by hand: weights from a seed, so that the expected answer can be computed in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Document = dict[str, Any]


def mlp_weights() -> tuple[Array, Array]:
    numbers = np.random.default_rng(7)
    return (numbers.normal(size=(64, 128)) / 8).astype("f4"), (numbers.normal(size=(128, 10)) / 11).astype("f4")


def mlp() -> tuple[bytes, Document]:
    """64-128-10 with softmax."""
    first, second = (numpy_helper.from_array(w, name) for w, name in zip(mlp_weights(), ("w1", "w2"), strict=True))
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Softmax", ["c"], ["probabilities"]),
    ]
    model = _model(nodes, [_value("x", "b", 64)], [_value("probabilities", "b", 10)], [first, second])
    return model, signature(
        {"x": ("FP32", [-1, 64])}, {"probabilities": ("FP32", [-1, 10])}, [str(i) for i in range(10)]
    )


def mlp_expected(x: Array) -> Array:
    first, second = mlp_weights()
    scores = np.maximum(x @ first, 0) @ second
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def image_mean(channels: int = 3, height: int = 4, width: int = 4) -> tuple[bytes, Document]:
    """The mean of each channel: uint8 [-1, C, H, W] → value [-1, C]."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["value"], keepdims=0),
    ]
    axes = numpy_helper.from_array(np.array([2, 3], dtype="i8"), "axes")
    image = _value("image", "b", channels, height, width, kind=TensorProto.UINT8)
    model = _model(nodes, [image], [_value("value", "b", channels)], [axes])
    return model, signature(
        {"image": ("UINT8", [-1, channels, height, width])}, {"value": ("FP32", [-1, channels])}, task="regression"
    )


def table() -> tuple[bytes, Document]:
    """Two columns, a number and a category: value = radius, and the category comes back as it is."""
    nodes = [helper.make_node("Identity", ["radius"], ["value"]), helper.make_node("Identity", ["texture"], ["echo"])]
    inputs = [_value("radius", "b", 1), _value("texture", "b", 1, kind=TensorProto.STRING)]
    outputs = [_value("value", "b", 1), _value("echo", "b", 1, kind=TensorProto.STRING)]
    described = {"radius": ("FP32", [-1, 1]), "texture": ("BYTES", [-1, 1])}
    return _model(nodes, inputs, outputs, []), signature(
        described, {"value": ("FP32", [-1, 1]), "echo": ("BYTES", [-1, 1])}, task="other"
    )


def lookup() -> tuple[bytes, Document]:
    """Row numbers into a table of ten: a number outside of it makes ONNX Runtime fail."""
    rows = numpy_helper.from_array(np.arange(10, dtype="f4").reshape(10, 1), "rows")
    nodes = [
        helper.make_node("Gather", ["rows", "index"], ["gathered"]),
        helper.make_node("Squeeze", ["gathered", "two"], ["value"]),
    ]
    two = numpy_helper.from_array(np.array([2], dtype="i8"), "two")
    model = _model(nodes, [_value("index", "b", 1, kind=TensorProto.INT64)], [_value("value", "b", 1)], [rows, two])
    return model, signature({"index": ("INT64", [-1, 1])}, {"value": ("FP32", [-1, 1])}, task="regression")


def fixed() -> tuple[bytes, Document]:
    """A model whose batch is always one."""
    nodes = [helper.make_node("Identity", ["x"], ["value"])]
    model = _model(nodes, [_value("x", 1, 3)], [_value("value", 1, 3)], [])
    return model, signature({"x": ("FP32", [1, 3])}, {"value": ("FP32", [1, 3])}, task="other")


def slow(size: int = 700, times: int = 6) -> tuple[bytes, Document]:
    """Takes some tens of milliseconds an item: what arrives meanwhile must wait."""
    square = numpy_helper.from_array(np.eye(size, dtype="f4"), "square")
    nodes = [helper.make_node("Expand", ["x", "shape"], ["m0"])]
    shape = numpy_helper.from_array(np.array([1, size, size], dtype="i8"), "shape")
    nodes += [helper.make_node("MatMul", [f"m{i}", "square"], [f"m{i + 1}"]) for i in range(times)]
    nodes.append(helper.make_node("ReduceMean", [f"m{times}", "axes"], ["value"], keepdims=0))
    axes = numpy_helper.from_array(np.array([1, 2], dtype="i8"), "axes")
    nodes.append(helper.make_node("Reshape", ["value", "column"], ["out"]))
    column = numpy_helper.from_array(np.array([-1, 1], dtype="i8"), "column")
    model = _model(nodes, [_value("x", "b", 1, 1)], [_value("out", "b", 1)], [square, shape, axes, column])
    return model, signature({"x": ("FP32", [-1, 1, 1])}, {"out": ("FP32", [-1, 1])}, task="other")


def signature(
    inputs: dict[str, tuple[str, list[int]]],
    outputs: dict[str, tuple[str, list[int]]],
    classes: list[str] | None = None,
    task: str | None = None,
) -> Document:
    document: Document = {
        field: [{"name": name, "datatype": datatype, "shape": shape} for name, (datatype, shape) in tensors.items()]
        for field, tensors in (("inputs", inputs), ("outputs", outputs))
    }
    return document | {"classes": classes} | ({"task": task} if task else {})


def _value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())

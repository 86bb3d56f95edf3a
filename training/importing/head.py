"""A last node behind one output of a graph, under a new name; the other outputs are left out.

Knows ONNX's structures only. What stood inside under the new name before is renamed.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.errors import ImportRefused
from training.importing.probe import Tensor

_SHAPE = "shape of one value"


def put_behind(model: onnx.ModelProto, output: Tensor, operator: str, name: str, width: int) -> onnx.ModelProto:
    """`output` as FP32 through `operator` (Identity, Softmax, Reshape) to `name`, FP32 [batch, width]."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    taken = names_in(graph)
    inner = output.name
    if name in taken:
        fresh = _fresh(f"{name}/raw", taken)
        _rename(graph, name, fresh)
        inner = fresh if inner == name else inner
    if any(value.name == name for value in graph.input):
        raise ImportRefused(f"an input has the output's name {name!r}", "rename the input", code="onnx_inputs")
    if output.datatype != "FP32":
        cast = _fresh(f"{name}/float", taken)
        graph.node.append(helper.make_node("Cast", [inner], [cast], to=TensorProto.FLOAT))
        inner = cast
    graph.node.append(_last(graph, operator, inner, name, taken))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
    return out


def _last(graph: onnx.GraphProto, operator: str, inner: str, name: str, taken: set[str]) -> onnx.NodeProto:
    if operator == "Softmax":
        return helper.make_node("Softmax", [inner], [name], axis=1)
    if operator == "Reshape":
        shape = _fresh(_SHAPE, taken)
        graph.initializer.append(numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), shape))
        return helper.make_node("Reshape", [inner, shape], [name])
    return helper.make_node("Identity", [inner], [name])


def names_in(graph: onnx.GraphProto) -> set[str]:
    """Every value's name, in nested graphs too."""
    names = {value.name for value in (*graph.input, *graph.initializer, *graph.output)}
    for node in graph.node:
        names.update(node.input)
        names.update(node.output)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= names_in(inner)
    return names


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "'"
    taken.add(name)
    return name


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if value == old else value for value in node.input]
        node.output[:] = [new if value == old else value for value in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, old, new)
    for value in (*graph.initializer, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new

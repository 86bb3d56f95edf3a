"""Texts into a graph that torch exported: a LabelEncoder (ai.onnx.ml) before each input that is a text's code.

Knows ONNX only: no torch, no data. The names that callers use stay; what is inside gets a prefix that no column has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper

ML_OPSET = 4


def glue(model: onnx.ModelProto, vocabularies: Mapping[str, Sequence[str]]) -> onnx.ModelProto:
    """The same model, its inputs named in `vocabularies` taking strings [N, 1] instead of int64 codes [N, 1]."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    if not vocabularies:
        return out
    graph = out.graph
    prefix = "code of "
    while any(value.name.startswith(prefix) for value in graph.input):
        prefix = "_" + prefix
    for name in vocabularies:
        _rename_uses(graph, name, prefix + name)
    encoders = [_encoder(name, prefix + name, values) for name, values in vocabularies.items()]
    nodes = [*encoders, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.input:
        if value.name in vocabularies:
            value.type.tensor_type.elem_type = TensorProto.STRING
    if not any(entry.domain == "ai.onnx.ml" for entry in out.opset_import):
        out.opset_import.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    onnx.checker.check_model(out)
    return out


def _encoder(name: str, code: str, values: Sequence[str]) -> onnx.NodeProto:
    return helper.make_node(
        "LabelEncoder",
        [name],
        [code],
        name=f"encode {name}",
        domain="ai.onnx.ml",
        keys_strings=list(values),
        values_int64s=list(range(1, len(values) + 1)),
        default_int64=0,
    )


def _rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename_uses(inner, old, new)

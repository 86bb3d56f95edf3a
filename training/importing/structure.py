"""What an ONNX file may be: a graph of standard operators with all its weights inside, of bounded size.

Of a graph that came with files of its own, the tensors of its outermost level may lie in those; external.py says where.
Looks at every node, tensor and nested graph; runs nothing. The versions are those that ONNX Runtime 1.32 serves.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import TensorProto

from training.errors import ImportRefused
from training.importing.weights import Weights, is_outside

MOST_BYTES = 2**31 - 1  # protobuf's own bound of one message
MOST_NODES = 100_000
MOST_DEPTH = 16
IR_VERSIONS = range(3, 15)
DOMAINS = {"": range(7, 29), "ai.onnx": range(7, 29), "ai.onnx.ml": range(1, 6)}
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_ONE_FILE = "save it as one file: onnx.save(model, path, save_as_external_data=False)"
_EXPORT = "export it again, by torch.onnx.export or skl2onnx for instance"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_FOREIGN = {
    b"PK\x03\x04": "it is a zip: a checkpoint of torch is no graph; export it by torch.onnx.export",
    b"\x80": "it is a pickle, which is never opened; export the model by torch.onnx.export or skl2onnx",
    b"\x89HDF": "it is an HDF5 file; convert it by tf2onnx",
    b"GGUF": "it is a GGUF file; language models are taken in elsewhere",
}


def check(data: bytes | bytearray, *, with_files: bool = False) -> onnx.ModelProto:
    """The model, after every rule; ImportRefused names the first one broken. `with_files`: tensors may lie outside."""
    model = _parsed(bytes(data))
    _check_versions(model)
    _check_parts(model)
    _check_graph(model, with_files)
    try:
        with _set_aside(model.graph):
            onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as problem:
        raise ImportRefused(f"the graph is not valid: {brief(problem)}", _EXPORT, code="onnx_invalid") from None
    return model


@contextmanager
def _set_aside(graph: onnx.GraphProto) -> Iterator[None]:
    """Tensors outside are empty for a while: the checker would look for their files on this machine."""
    kept = [(tensor, tensor.SerializeToString()) for tensor in graph.initializer if is_outside(tensor)]
    for tensor, _ in kept:
        tensor.CopyFrom(TensorProto(name=tensor.name, data_type=TensorProto.FLOAT, dims=[0]))
    try:
        yield
    finally:
        for tensor, content in kept:
            tensor.ParseFromString(content)


def brief(problem: BaseException) -> str:
    """The first line of what a library says, shortened."""
    line = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
    return line[:300]


def _parsed(data: bytes) -> onnx.ModelProto:
    if len(data) > MOST_BYTES:
        raise ImportRefused(
            f"the file has {len(data)} bytes", f"{MOST_BYTES} are the most of one ONNX file", code="onnx_too_large"
        )
    for start, hint in _FOREIGN.items():
        if data.startswith(start):
            raise ImportRefused("the file is not ONNX", hint, code="onnx_unreadable")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError):
        raise ImportRefused("the file is not ONNX, or ends early", _EXPORT, code="onnx_unreadable") from None
    if not model.HasField("graph") or not model.graph.node:
        raise ImportRefused("the file holds no graph", _EXPORT, code="onnx_unreadable")
    return model


def _check_versions(model: onnx.ModelProto) -> None:
    if model.ir_version not in IR_VERSIONS:
        raise ImportRefused(
            f"the IR version is {model.ir_version}",
            f"{IR_VERSIONS[0]} to {IR_VERSIONS[-1]} are served",
            code="onnx_ir_version",
        )
    seen: set[str] = set()
    for entry in model.opset_import:
        versions = DOMAINS.get(entry.domain) if isinstance(entry.domain, str) else None
        if versions is None:
            raise _foreign_domain(entry.domain)
        if entry.version not in versions:
            raise ImportRefused(
                f"opset {entry.version} of {entry.domain or 'ai.onnx'} is not known",
                f"export it with opset {versions[0]} to {versions[-1]}",
                code="onnx_opset",
            )
        name = entry.domain or "ai.onnx"
        if name in seen:
            raise ImportRefused(f"the opset of {name} is given twice", _EXPORT, code="onnx_opset")
        seen.add(name)
    if "ai.onnx" not in seen:
        raise ImportRefused("no opset is given", _EXPORT, code="onnx_opset")


def _foreign_domain(domain: str) -> ImportRefused:
    return ImportRefused(
        f"operators of the domain {str(domain)[:80]!r} are not served",
        "use operators of ai.onnx and ai.onnx.ml only",
        code="onnx_domain",
    )


def _check_parts(model: onnx.ModelProto) -> None:
    if model.functions:
        raise ImportRefused(
            f"the file defines {len(model.functions)} functions of its own",
            "inline them: onnx.inliner.inline_local_functions(model)",
            code="onnx_functions",
        )
    if model.training_info:
        raise ImportRefused("the file holds a training graph", "export it for inference", code="onnx_training")


@dataclass(slots=True)
class _Count:
    nodes: int = 0


def _check_graph(model: onnx.ModelProto, with_files: bool) -> None:
    versions = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    count = _Count()
    for number, graph in enumerate(_graphs(model.graph, count, 0)):
        if not all(isinstance(name, str) for name in _names(graph)):  # protobuf gives bytes where it is no UTF-8
            raise ImportRefused("a name in the graph is not UTF-8", _EXPORT, code="onnx_unreadable")
        outermost = not number  # whose initializers external.py looks at, where there are files
        _check_inside(() if with_files and outermost else graph.initializer, with_files)
        _check_inside(_tensors_within(graph), with_files)
        for node in graph.node:
            _check_operator(node, versions)


def _check_inside(tensors: Iterable[TensorProto], with_files: bool) -> None:
    for tensor in tensors:
        if is_outside(tensor):
            raise ImportRefused(
                f"the weights {tensor.name[:80]!r} lie outside the file",
                "only initializers of the outermost graph may lie in another file" if with_files else _ONE_FILE,
                code="onnx_external_data",
            )


def _graphs(graph: onnx.GraphProto, count: _Count, depth: int) -> Iterator[onnx.GraphProto]:
    """The graph and all within it; nodes are counted before anything is done with them."""
    count.nodes += len(graph.node)
    if count.nodes > MOST_NODES:
        raise ImportRefused(f"there are over {MOST_NODES} nodes", "export a smaller graph", code="onnx_too_many_nodes")
    if depth > MOST_DEPTH:
        raise ImportRefused("graphs are nested too deep", f"{MOST_DEPTH} levels at most", code="onnx_nested")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, count, depth + 1)
            for inner in attribute.graphs:
                yield from _graphs(inner, count, depth + 1)


def _names(graph: onnx.GraphProto) -> Iterator[object]:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from (size.dim_param for size in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.t.name)


def _tensors_within(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """All but the initializers: of sparse tensors and attributes."""
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _check_operator(node: onnx.NodeProto, versions: dict[str, int]) -> None:
    domain = node.domain or "ai.onnx"
    if domain not in DOMAINS:
        raise _foreign_domain(node.domain)
    if domain not in versions:
        raise ImportRefused(f"no opset is given for {domain}, which the graph uses", _EXPORT, code="onnx_opset")
    if node.op_type in RANDOM:
        raise ImportRefused(
            f"the operator {node.op_type} draws at random",
            "export it for inference: a served model answers the same twice",
            code="onnx_operator",
        )
    try:
        schema = onnx.defs.get_schema(node.op_type, versions[domain], "" if domain == "ai.onnx" else domain)
        known = not schema.deprecated
    except onnx.defs.SchemaError:
        known = False
    if not known:
        raise ImportRefused(
            f"the operator {node.op_type[:80]!r} is not in opset {versions[domain]} of {domain}",
            _EXPORT,
            code="onnx_operator",
        )
    _check_inputs(node, schema)


def _check_inputs(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    """An input is left out only where its operator says so: the checker overlooks it, the engine falls over it."""
    formal = schema.inputs
    for place, name in enumerate(node.input):
        parameter = formal[min(place, len(formal) - 1)] if formal else None
        if not name and (parameter is None or parameter.option != onnx.defs.OpSchema.FormalParameterOption.Optional):
            raise ImportRefused(
                f"input {place + 1} of an operator {node.op_type[:80]!r} is left out", _EXPORT, code="onnx_invalid"
            )


def parameters(model: onnx.ModelProto) -> int:
    """How many numbers the graph's weights have."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in _FLOATS)


def weights_sha256(model: onnx.ModelProto, weights: Weights | None = None) -> str:
    """SHA-256 over names and stored bytes of the weights, in the order of the names."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        digest.update(tensor.name.encode() + b"\0")
        if weights is not None and is_outside(tensor):
            digest.update(weights.of(tensor))
        else:
            digest.update(tensor.raw_data or tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()

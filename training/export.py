"""From the trained network to one ONNX file that takes what the user has, and the proof that it answers alike.

torch's exporter, opset 20, one named batch axis, weights inside. Values inside the graph get a prefix that no column
has; traces of our source files are taken out. The proof runs ONNX Runtime on real rows and compares with torch. It
writes no file and knows nothing of jobs or seals.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from training.data.rows import Array
from training.errors import ParityFailed
from training.spec.train import Parity

OUTPUTS = {"classification": "probabilities", "regression": "value"}
MOST_ROWS = 65_536
PARITY_ROWS = 1024


def to_onnx(
    served: nn.Module, example: Sequence[torch.Tensor], names: Sequence[str], output: str, opset: int
) -> onnx.ModelProto:
    """The graph of `served`; `example` has two rows or more of each of its inputs, in the order of `names`."""
    batch = torch.export.Dim("batch", min=1, max=MOST_ROWS)
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(
        logging.ERROR
    )  # laments torchvision's absence
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            served.eval(),
            tuple(example),
            dynamo=True,
            input_names=[f"input_{place}" for place in range(len(names))],
            output_names=["output"],
            opset_version=opset,
            dynamic_shapes=(tuple({0: batch} for _ in example),),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch exported nothing")
    return _cleaned(program.model_proto, names, output)


def _cleaned(model: onnx.ModelProto, names: Sequence[str], output: str) -> onnx.ModelProto:
    """With the callers' names outside, prefixed names inside and no word about where it was made."""
    graph = model.graph
    prefix = "net/"
    while any(name.startswith(prefix) for name in (*names, output)):
        prefix = "_" + prefix
    renamed = {value.name: name for value, name in zip(graph.input, names, strict=True)}
    renamed[graph.output[0].name] = output

    def new(name: str) -> str:
        return renamed.get(name, prefix + name) if name else name  # "" is an input left out

    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new(value.name)
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.value_info[:]
    del graph.metadata_props[:]
    del model.metadata_props[:]
    graph.name, graph.doc_string, model.doc_string = "strongroom", "", ""
    return model


def rows_of(inputs: Mapping[str, Array], signature: Sequence[Mapping[str, Any]], rows: Array) -> dict[str, Array]:
    """Raw rows in the shapes that the signature's inputs have."""
    found = {}
    for entry in signature:
        values = inputs[entry["name"]][rows]
        found[entry["name"]] = values.reshape(-1, 1) if values.ndim == 1 else values
    return found


def prove(model: bytes, inputs: Mapping[str, Array], expected: Array, parity: Parity, unit: float = 1.0) -> float:
    """Runs the file on real rows, all at once and the first alone; ParityFailed where it is too far from torch.

    `unit`: the deviation of a regression's target, so that the tolerance means the same for metres and for millimetres.
    Returns the largest difference, in that unit.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = InferenceSession(model, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (len(expected), 1):
        found = session.run(None, {name: values[:count] for name, values in inputs.items()})[0]
        wanted = expected[:count]
        if found.shape != wanted.shape:
            raise ParityFailed(
                f"the exported graph answers in shape {list(found.shape)}, not {list(wanted.shape)}", None
            )
        difference = np.abs(found - wanted)
        allowed = parity.atol * unit + parity.rtol * np.abs(wanted)
        if not (difference <= allowed).all():  # NaN is not within any tolerance
            raise ParityFailed(
                f"the exported graph differs from the network by {np.nanmax(difference):.3g} "
                f"on {count} rows of the validation part; allowed are {parity.atol:g} and {parity.rtol:g} of the value",
                "raise export.parity if such a difference is harmless",
            )
        worst = max(worst, float(difference.max()) / unit)
    return worst

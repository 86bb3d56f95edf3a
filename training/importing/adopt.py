"""From a graph that runs to one that keeps its task's promise: its output, what is put behind it, the signature.

classification gives `probabilities` FP32 [-1, classes] (softmax where rows do not sum to 1), regression `value` FP32
[-1, 1], embedding one FP32 vector a row; other tasks keep their outputs as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from training.errors import ImportRefused
from training.importing.head import put_behind
from training.importing.probe import Probe, Tensor, keeps_rows, shape_of, sums_to_one
from training.importing.weights import Weights

Runs = Any
_FLOATS = ("FP16", "FP32", "FP64")


def adopt(
    model: onnx.ModelProto,
    *,
    task: str,
    classes: Sequence[str] | None,
    threads: int,
    weights: Weights | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """The bytes to serve and their signature; the bytes have been run, on `weights` where tensors lie outside."""
    probe = Probe(model.SerializeToString(), threads, weights)
    runs = probe.run()
    if task == "classification":
        output, names = _classified(probe, runs, classes)
        head = "Identity" if sums_to_one(output.name, runs) else "Softmax"
        served = put_behind(model, output, head, "probabilities", len(names))
    elif task == "regression":
        names = None
        served = put_behind(model, _one(probe, runs, "a number a row", _is_value), "Reshape", "value", 1)
    elif task == "embedding":
        names = None
        output = _one(probe, runs, "a vector a row", lambda shape: len(shape) == 2)
        served = put_behind(model, output, "Identity", output.name, runs[2][output.name].shape[1])
    else:
        names = None
        served = model
    return _finished(served, task, names, threads, weights)


def _classified(probe: Probe, runs: Runs, classes: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    """The one output with a score a class, and the classes; numbered where none are given."""
    output = _one(probe, runs, "a score a class", lambda shape: len(shape) == 2 and shape[1] >= 2)
    width = runs[2][output.name].shape[1]
    if classes is not None and len(classes) != width:
        raise ImportRefused(
            f"{len(classes)} classes are given, output {output.name[:80]!r} has {width} scores",
            f"give {width} classes in the order of the scores",
            code="onnx_classes",
        )
    return output, [str(number) for number in range(width)] if classes is None else list(classes)


def _is_value(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _one(probe: Probe, runs: Runs, wanted: str, fits: Any) -> Tensor:
    """The only output of floats that keeps its rows and has the wanted shape."""
    found = [
        value
        for value in probe.outputs
        if value.datatype in _FLOATS and keeps_rows(value.name, runs) and fits(runs[2][value.name].shape)
    ]
    if len(found) != 1:
        shown = ", ".join(
            f"{value.name[:40]} {value.datatype} {list(shape_of(value, runs))}" for value in probe.outputs[:8]
        )
        raise ImportRefused(
            f"there is not exactly one output with {wanted}: {shown}",
            "leave the one output that answers the task, or import it with the task other",
            code="onnx_outputs",
        )
    return found[0]


def _finished(
    model: onnx.ModelProto, task: str, classes: list[str] | None, threads: int, weights: Weights | None
) -> tuple[bytes, dict[str, Any]]:
    """Tried once more as it will be served; the signature is read from that."""
    data = model.SerializeToString()
    probe = Probe(data, threads, weights)
    runs = probe.run()
    outputs = [Tensor(value.name, value.datatype, shape_of(value, runs)) for value in probe.outputs]
    signature = {
        "inputs": [value.described() for value in probe.inputs],
        "outputs": [value.described() for value in outputs],
        "classes": classes,
        "task": task if task in ("classification", "regression", "embedding") else "other",
    }
    return data, signature

"""A graph made to run: its session, what it says of its inputs and outputs, and what it does with made-up rows.

A batch of two and one of five show that rows come out as many as they went in. Sizes that the graph leaves open are
tried from a short list. A graph that does not end is ended from outside.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from training.errors import ImportRefused
from training.importing.structure import brief as brief
from training.importing.weights import LOCATION, Weights
from training.tensors import DTYPES, Array

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
MOST_TENSORS = 256
MOST_ITEM_BYTES = 256 * 2**20  # one row of one input
_OPEN_SIZES = (8, 32, 64, 128, 224, 256, 1)
_BATCHES = (2, 5)
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output; -1 in the shape is a size that is open."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def described(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


class Probe:
    """The session of one graph, until it has run. One thread uses it."""

    def __init__(self, model: bytes, threads: int, weights: Weights | None = None) -> None:
        self._session = opened(model, threads, weights)
        self.inputs = [_described(value, "input") for value in self._session.get_inputs()]
        self.outputs = [_described(value, "output") for value in self._session.get_outputs()]
        if not self.inputs or len(self.inputs) > MOST_TENSORS or len(self.outputs) > MOST_TENSORS:
            raise ImportRefused(
                f"the graph has {len(self.inputs)} inputs and {len(self.outputs)} outputs",
                f"1 to {MOST_TENSORS} of each are served",
                code="onnx_inputs",
            )
        for value in self.inputs:
            if not value.shape or value.shape[0] != -1:
                raise ImportRefused(
                    f"input {value.name[:80]!r} has the shape {list(value.shape)}: its first axis is no open batch",
                    "export it with a dynamic first axis (torch: dynamic_shapes)",
                    code="onnx_batch_axis",
                )

    def run(self) -> dict[int, dict[str, Array]]:
        """Outputs by the number of rows that went in. Once: in a session weights from outside are there twice."""
        try:
            return self._run()
        finally:
            del self._session

    def _run(self) -> dict[int, dict[str, Array]]:
        refusal: ImportRefused | None = None
        with _deadline() as options:
            for size in _OPEN_SIZES if any(-1 in value.shape[1:] for value in self.inputs) else (1,):
                try:
                    return {rows: self._outputs(rows, size, options) for rows in _BATCHES}
                except ImportRefused as problem:
                    refusal = problem
                    if options.terminate:
                        break
        if options.terminate:
            raise ImportRefused(
                f"the graph had not answered after {SECONDS:.0f} seconds",
                "export a smaller graph",
                code="onnx_too_slow",
            )
        raise refusal or ImportRefused("the graph gives no answer", None, code="onnx_not_runnable")

    def _outputs(self, rows: int, size: int, options: Any) -> dict[str, Array]:
        feed = {value.name: _made_up(value, rows, size) for value in self.inputs}
        try:
            found = self._session.run(None, feed, options)
        except Exception as problem:  # its errors have no common class; memory is told apart by who asked
            _raise_if_memory(problem)
            raise ImportRefused(
                f"the graph fails on made-up rows: {_said(problem)}",
                "check that every axis but the batch has the size the graph needs",
                code="onnx_not_runnable",
            ) from None
        return {value.name: np.asarray(array) for value, array in zip(self.outputs, found, strict=True)}


def opened(model: bytes, threads: int, weights: Weights | None) -> onnxruntime.InferenceSession:
    """A session for a few runs; its weights from outside are there a second time while it lives."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if weights is not None:
        options.add_external_initializers_from_files_in_memory([LOCATION], [weights.view], [len(weights.view)])
        options.add_session_config_entry("session.disable_prepacking", "1")  # another copy of each, for two runs
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # as below
        _raise_if_memory(problem)
        raise ImportRefused(
            f"the graph cannot be served: {_said(problem)}", "export it with another opset", code="onnx_not_runnable"
        ) from None


def _raise_if_memory(problem: Exception) -> None:
    if isinstance(problem, MemoryError) or "bad_alloc" in str(problem) or "Failed to allocate memory" in str(problem):
        raise MemoryError from None


def _said(problem: Exception) -> str:
    """What ONNX Runtime says, without the places in its own source."""
    words = brief(problem).removeprefix("[ONNXRuntimeError] : ").split(" ")
    return " ".join(word for word in words if "/" not in word or not word.startswith("/"))


def _described(value: Any, role: str) -> Tensor:
    datatype = DATATYPES.get(value.type)
    if datatype is None:
        raise ImportRefused(
            f"{role} {value.name[:80]!r} is a {value.type[:80]}",
            "only tensors of numbers and texts are served; skl2onnx: options={'zipmap': False}",
            code="onnx_type",
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in value.shape or ())
    return Tensor(value.name, datatype, shape)


def _made_up(value: Tensor, rows: int, size: int) -> Array:
    """Rows that differ, of numbers that most graphs take: small for whole ones, around zero for the others."""
    shape = (rows, *(size if axis == -1 else axis for axis in value.shape[1:]))
    count = int(np.prod(shape, dtype=object))
    if count * (1 if value.datatype == "BYTES" else DTYPES[value.datatype].itemsize) > rows * MOST_ITEM_BYTES:
        raise ImportRefused(
            f"a row of input {value.name[:80]!r} is too large", "use smaller rows", code="onnx_too_large"
        )
    if value.datatype == "BYTES":
        return np.full(shape, "a", dtype=object)
    random = np.random.default_rng(0)
    dtype = DTYPES[value.datatype]
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


@contextmanager
def _deadline() -> Iterator[Any]:
    """Run options that end the run when the time is up."""
    options = onnxruntime.RunOptions()

    def end() -> None:
        options.terminate = True

    timer = threading.Timer(SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def keeps_rows(name: str, runs: dict[int, dict[str, Array]]) -> bool:
    """Whether an output has a row for each row that went in."""
    return all(found[name].ndim > 0 and len(found[name]) == rows for rows, found in runs.items())


def sums_to_one(name: str, runs: dict[int, dict[str, Array]]) -> bool:
    """Whether every row that was seen is a distribution."""
    return all(_is_distribution(found[name].astype(np.float64)) for found in runs.values())


def _is_distribution(rows: Array) -> bool:
    return bool((rows >= 0).all() and np.abs(rows.sum(axis=1) - 1).max() < 1e-3)


def shape_of(value: Tensor, runs: dict[int, dict[str, Array]]) -> tuple[int, ...]:
    """The shape for the signature: the batch open, sizes that the graph does not say taken from what was seen."""
    seen: Sequence[int] = runs[_BATCHES[0]][value.name].shape
    rank_known = len(value.shape) == len(seen)
    if not keeps_rows(value.name, runs):
        return tuple(seen)
    return (-1, *(value.shape[1:] if rank_known else seen[1:]))

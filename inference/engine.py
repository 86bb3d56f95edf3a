"""What computes: arrays in, arrays out, by ONNX Runtime from bytes in memory.

Knows sessions, their options and their errors. Knows nothing of queues, frames or keys. A graph over 2 GiB has its
weights beside it; what cannot be a session is refused while loading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from mmap import mmap
from typing import Any, Final, Protocol

import numpy as np
import onnxruntime

from inference.errors import ComputeFailed, InputRefused, LoadFailed
from inference.protocol import DTYPES, Array
from inference.signature import Signature, Tensor

MAX_MODEL_BYTES: Final = (2 << 30) - 1  # protobuf's own bound of one message
WEIGHTS: Final = "weights"  # where the graph of a bundle says that its tensors lie
_ONNX_TYPES: Final = {
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


class ArrayEngine(Protocol):
    """One loaded model that answers arrays with arrays. A language model's engine stands beside it, not under it."""

    signature: Signature

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs in the order asked for; ComputeFailed when the model fails on these inputs."""


class OnnxEngine:
    """An ONNX Runtime session. `run` may be called from any one thread at a time; it releases the GIL.

    `weights` is copied into the session and needed no longer when this is made: who gave it away has them once.
    """

    def __init__(
        self, model: bytes, signature: Signature, *, threads: int = 1, weights: bytearray | mmap | None = None
    ) -> None:
        if len(model) > MAX_MODEL_BYTES:
            raise LoadFailed(f"the model has {len(model)} bytes; more than {MAX_MODEL_BYTES} are not served")
        self.signature = signature
        self._text = tuple(tensor.name for tensor in signature.inputs if tensor.datatype == "BYTES")
        options = _options(threads)
        if weights is not None:
            options.add_external_initializers_from_files_in_memory([WEIGHTS], [memoryview(weights)], [len(weights)])
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions share no class
            raise LoadFailed(f"ONNX Runtime refused the model ({type(error).__name__})") from None
        self._session._model_bytes = None  # kept by the wrapper for a fallback that a cell never takes: a second copy
        self._session.disable_fallback()
        _check(signature.inputs, self._session.get_inputs(), "input")
        _check(signature.outputs, self._session.get_outputs(), "output", all_of_them=False)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        feed = {**inputs, **{name: _texts(name, inputs[name]) for name in self._text}} if self._text else inputs
        try:
            return self._session.run(outputs, feed)  # type: ignore[no-any-return]  # onnxruntime is untyped
        except Exception as error:  # as above; its text may name the tenant's nodes, so only the class is told
            raise ComputeFailed(f"the model failed on this input ({type(error).__name__})") from None

    def warm_up(self) -> bool:
        """One run on zeros, so that the first caller does not pay for it; False when the model takes no zeros."""
        zeros = {tensor.name: _zeros(tensor) for tensor in self.signature.inputs}
        if sum(array.size for array in zeros.values()) > 16_000_000:
            return False
        try:
            self.run(zeros, [tensor.name for tensor in self.signature.outputs])
        except ComputeFailed:
            return False
        return True


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # nothing of a model is written to a log
    for entry in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
        options.add_session_config_entry(entry, "0")  # idle threads of many cells would eat the cores
    # Weights outside the arena, so that it grows by what requests need and not in doubled strides of the model's size.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _check(described: Sequence[Tensor], nodes: Sequence[Any], what: str, *, all_of_them: bool = True) -> None:
    """The signature was made beside the model, not by the cell: both must say the same."""
    have = {node.name: node for node in nodes}
    for tensor in described:
        node = have.get(tensor.name)
        if node is None or _ONNX_TYPES.get(node.type) != tensor.datatype:
            given = node.type if node is not None else "absent"
            raise LoadFailed(f"{what} '{tensor.name}' is {given} in the model and {tensor.datatype} in its signature")
    if all_of_them and len(have) != len(described):
        raise LoadFailed(f"the model has {len(have)} {what}s, its signature {len(described)}")


def _texts(name: str, array: Array) -> Array:
    """ONNX Runtime takes text as str."""
    texts = np.empty(array.size, dtype=object)
    try:
        for index, element in enumerate(array.reshape(-1).tolist()):
            texts[index] = element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError:
        raise InputRefused(f"/inputs/{name}", "encoding", "holds bytes that are not UTF-8", "expected text") from None
    return texts.reshape(array.shape)


def _zeros(tensor: Tensor) -> Array:
    shape = [max(size, 1) for size in tensor.shape]
    return np.full(shape, "", dtype=object) if tensor.datatype == "BYTES" else np.zeros(shape, DTYPES[tensor.datatype])

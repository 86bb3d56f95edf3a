"""Rows of weights from one stored type into another, by ggml's own code: what is served is what ggml means by it.

ggml's ctypes are called with the lock let go, so threads share a piece. A number that is not finite ends it: it would
make every answer nonsense.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.archive import shown
from training.language.gguf import Bytes, refused
from training.language.library import llama_cpp
from training.language.tensor_types import BF16, F16, F32, Q4_0, Q8_0, TensorType

Rows = NDArray[np.float32]
_LEAST_ROWS = 64  # of a thread's share: below it starting one costs more


class _Traits(ctypes.Structure):
    """ggml_type_traits, as far as it is asked; checked against the type's name before use."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("block_interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


@cache
def _ggml() -> Any:
    library = ctypes.CDLL(str(Path(llama_cpp().__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = (
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    )
    library.ggml_validate_row_data.restype = ctypes.c_bool
    library.ggml_validate_row_data.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    library.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    return library


class Recoder:
    """From stored rows to stored rows. Made for one tensor; `name` is what a refusal calls it."""

    def __init__(self, name: str, source: TensorType, target: TensorType, width: int, threads: int) -> None:
        self.name = name
        self.source, self.target = source, target
        self.width = width
        self._threads = threads

    def __call__(self, rows: Bytes) -> Bytes:
        """Whole rows of the source's type in, the same rows in the target's out, looked through."""
        return _side_by_side(self._one, rows, self.source.row_bytes(self.width), self._threads)

    def _one(self, rows: memoryview) -> Bytes:
        recoded: Bytes = rows
        if self.source != self.target:
            floats = dequantized(rows, self.source, self.width)
            if not np.isfinite(floats).all():
                raise not_finite(self.name)
            recoded = quantized(floats, self.target)
        if not is_finite(recoded, self.target):
            raise not_finite(self.name)
        return recoded


def not_finite(name: str) -> Exception:
    return refused(
        "weights_not_finite",
        f"tensor {shown(name)} holds a number that is not finite",
        "save the model again, in BF16 or F32",
    )


def is_finite(rows: Bytes, kind: TensorType) -> bool:
    """ggml's own look at stored rows: at every number, or at every block's scale. llama.cpp would do the same when it
    loads (check_tensors), in a thread for each tensor, for whose stacks a job has no room."""
    stored = np.frombuffer(rows, dtype=np.uint8)
    return bool(_ggml().ggml_validate_row_data(kind.number, stored.ctypes.data, stored.size))


def dequantized(rows: Bytes, kind: TensorType, width: int) -> Rows:
    """Stored rows as floats."""
    if kind == F32:
        return np.frombuffer(rows, dtype="<f4").reshape(-1, width)
    if kind == F16:
        return np.frombuffer(rows, dtype="<f2").astype(np.float32).reshape(-1, width)
    if kind == BF16:
        return (np.frombuffer(rows, dtype="<u2").astype(np.uint32) << 16).view(np.float32).reshape(-1, width)
    stored = np.frombuffer(rows, dtype=np.uint8)
    floats = np.empty((len(stored) // kind.row_bytes(width), width), dtype=np.float32)
    traits = _ggml().ggml_get_type_traits(kind.number).contents
    if traits.name.decode().upper() != kind.name or traits.block_bytes != kind.block_bytes:
        raise RuntimeError(f"ggml's type {kind.number} is not {kind.name}")
    traits.to_float(stored.ctypes.data, floats.ctypes.data, floats.size)
    return floats


def quantized(floats: Rows, kind: TensorType) -> bytes:
    """Floats as rows of a type; ggml rounds."""
    floats = np.ascontiguousarray(floats, dtype=np.float32)
    count, width = floats.shape
    stored = np.empty(count * kind.row_bytes(width), dtype=np.uint8)
    _ggml().ggml_quantize_chunk(kind.number, floats.ctypes.data, stored.ctypes.data, 0, count, width, None)
    return stored.tobytes()


def _side_by_side(work: Callable[[memoryview], Bytes], rows: Bytes, row_bytes: int, threads: int) -> Bytes:
    view = memoryview(rows).cast("B")
    count = len(view) // row_bytes
    lanes = max(1, min(threads, count // _LEAST_ROWS))
    edges = [row_bytes * (count * lane // lanes) for lane in range(lanes + 1)]
    shares = [view[begin:end] for begin, end in pairwise(edges)]
    if lanes == 1:
        return work(shares[0])
    with ThreadPoolExecutor(lanes) as pool:
        return b"".join(pool.map(work, shares))


# Of the head where the rest is Q4_0. On SmolLM2 it answers as a BF16 head does (perplexity 46.2 and 46.1, a Q4_0 head
# 49.8), in half the memory; tokens a second at 1, 8 and 32 sequences 255, 395, 589 (BF16 224, 474, 630; one thread).
HEAD = Q8_0


def of_wanted(wanted: str, width: int, *, is_head: bool) -> TensorType:
    """The type that a matrix gets where `wanted` is q4_0 or bf16; rows that are no whole blocks stay BF16."""
    kind = BF16 if wanted == "bf16" else HEAD if is_head else Q4_0
    return BF16 if width % kind.block else kind

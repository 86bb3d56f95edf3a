"""A model written anew into memory: one pass over its tensors, each recoded piece by piece.

The one place where weights are held: what comes is a few megabytes at a time, what is made lies in the file once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from training.language import gguf, structure
from training.language.gguf import Bytes, Field, Head, Read, Tensor
from training.language.memory_file import MemoryFile
from training.language.tensor_types import TensorType
from training.language.weights import Recoder, of_wanted

PIECE_BYTES = 4 * 2**20
QUANTIZATION_VERSION = 2  # ggml's, of the layout of blocks
# general.file_type, as llama.cpp's llama_ftype numbers what most weights are.
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}
Look = Callable[[], object]


class Recode(Protocol):
    """From stored rows to stored rows."""

    def __call__(self, rows: Bytes, /) -> Bytes: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor as it will be, how its pieces are recoded, and how long they should be when they come."""

    tensor: Tensor
    recode: Recode
    piece_bytes: int


def written(
    fields: Mapping[str, Field], parts: Sequence[Part], pieces: Iterable[tuple[str, Bytes]], watch: Look
) -> tuple[MemoryFile, Head]:
    """The sealed file and the head that it was given. `pieces` come in the order of the parts, by the parts' names."""
    file = MemoryFile()
    writer = gguf.Writer(file.write, fields, [part.tensor for part in parts])
    recode = {part.tensor.name: part.recode for part in parts}
    for name, piece in pieces:
        watch()
        writer.data(recode[name](piece))
    writer.close()
    file.seal()
    return file, Head(gguf.VERSIONS[-1], fields, writer.tensors, writer.data_offset, writer.size_bytes)


def requantized(read: Read, head: Head, wanted: str, *, threads: int, watch: Look) -> tuple[MemoryFile, Head]:
    """A GGUF file with its matrices as q4_0 or bf16, or kept as they are; always aligned as llama.cpp likes it."""
    tied = all(tensor.name != "output.weight" for tensor in head.tensors)
    parts = [_part(tensor, wanted, tied, threads) for tensor in head.tensors]
    fields = {key: field for key, field in head.fields.items() if key != "general.alignment"}
    if wanted != "keep":
        fields |= described([part.tensor for part in parts])
    return written(fields, parts, _ranges(read, head.tensors, parts), watch)


def described(tensors: Sequence[Tensor]) -> dict[str, Field]:
    """What the head says of the weights' type."""
    kind = structure.majority_type(tensors)
    return {
        "general.file_type": Field("u32", FILE_TYPES.get(kind, 0)),
        "general.quantization_version": Field("u32", QUANTIZATION_VERSION),
    }


def target(name: str, shape: tuple[int, ...], source: TensorType, wanted: str, *, tied: bool) -> TensorType:
    """The type that a tensor is served in; what is no matrix stays."""
    if wanted == "keep" or len(shape) == 1:
        return source
    return of_wanted(wanted, shape[0], is_head=name == "output.weight" or (tied and name == "token_embd.weight"))


def whole_rows(row_bytes: int, together: int = 1) -> int:
    """The length of pieces that hold whole rows, `together` of them or a multiple."""
    rows = max(1, PIECE_BYTES // row_bytes)
    return max(together, rows - rows % together) * row_bytes


def _part(tensor: Tensor, wanted: str, tied: bool, threads: int) -> Part:
    kind, width = target(tensor.name, tensor.shape, tensor.type, wanted, tied=tied), tensor.shape[0]
    recode = Recoder(tensor.name, tensor.type, kind, width, threads)
    return Part(Tensor(tensor.name, tensor.shape, kind), recode, whole_rows(tensor.type.row_bytes(width)))


def _ranges(read: Read, tensors: Sequence[Tensor], parts: Sequence[Part]) -> Iterator[tuple[str, Bytes]]:
    for tensor, part in zip(tensors, parts, strict=True):
        for begin in range(0, tensor.size_bytes, part.piece_bytes):
            size = min(part.piece_bytes, tensor.size_bytes - begin)
            yield tensor.name, read(tensor.offset + begin, size)


def weights_sha256(file: MemoryFile, tensors: Sequence[Tensor], watch: Look) -> str:
    """SHA-256 over names and stored bytes of the weights, in the order of the names."""
    digest = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        digest.update(tensor.name.encode() + b"\0")
        for piece in file.pieces(tensor.offset, tensor.size_bytes):
            watch()
            digest.update(piece)
    return digest.hexdigest()

"""How GGUF stores numbers: each type's number in the file, how many weights share a block, and the block's bytes.

A list to be read from a file by its number; which of them a served model may have is structure.py's to say.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class TensorType:
    """A row's weights are stored in blocks, each by itself; a block of one is a plain number."""

    name: str
    number: int
    block: int
    block_bytes: int

    def row_bytes(self, width: int) -> int:
        if width % self.block:
            raise ValueError(f"{width} weights are no whole blocks of {self.block}")
        return width // self.block * self.block_bytes

    def size_bytes(self, shape: Sequence[int]) -> int:
        return self.row_bytes(shape[0]) * math.prod(shape[1:])


F32 = TensorType("F32", 0, 1, 4)
F16 = TensorType("F16", 1, 1, 2)
Q4_0 = TensorType("Q4_0", 2, 32, 18)
Q8_0 = TensorType("Q8_0", 8, 32, 34)
BF16 = TensorType("BF16", 30, 1, 2)

BY_NUMBER: Mapping[int, TensorType] = MappingProxyType(
    {
        kind.number: kind
        for kind in (
            F32,
            F16,
            Q4_0,
            TensorType("Q4_1", 3, 32, 20),
            TensorType("Q5_0", 6, 32, 22),
            TensorType("Q5_1", 7, 32, 24),
            Q8_0,
            TensorType("Q2_K", 10, 256, 84),
            TensorType("Q3_K", 11, 256, 110),
            TensorType("Q4_K", 12, 256, 144),
            TensorType("Q5_K", 13, 256, 176),
            TensorType("Q6_K", 14, 256, 210),
            TensorType("IQ2_XXS", 16, 256, 66),
            TensorType("IQ2_XS", 17, 256, 74),
            TensorType("IQ3_XXS", 18, 256, 98),
            TensorType("IQ1_S", 19, 256, 50),
            TensorType("IQ4_NL", 20, 32, 18),
            TensorType("IQ3_S", 21, 256, 110),
            TensorType("IQ2_S", 22, 256, 82),
            TensorType("IQ4_XS", 23, 256, 136),
            TensorType("I8", 24, 1, 1),
            TensorType("I16", 25, 1, 2),
            TensorType("I32", 26, 1, 4),
            TensorType("I64", 27, 1, 8),
            TensorType("F64", 28, 1, 8),
            TensorType("IQ1_M", 29, 256, 56),
            BF16,
            TensorType("TQ1_0", 34, 256, 54),
            TensorType("TQ2_0", 35, 256, 66),
            TensorType("MXFP4", 39, 32, 17),
        )
    }
)
BY_NAME: Mapping[str, TensorType] = MappingProxyType({kind.name: kind for kind in BY_NUMBER.values()})

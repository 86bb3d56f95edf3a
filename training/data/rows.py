"""What every reader of a data set gives back: arrays by name, the target, and what the columns are.

Knows numpy only. It knows no file format, no seal and no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Indices: TypeAlias = NDArray[np.int64]
ColumnType = Literal["image", "number", "category"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the data set; `shape` is that of one row's value where that is no single one."""

    name: str
    type: ColumnType
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """What a file holds before anybody says what the target means: integers, fractions or texts."""

    modality: Literal["image", "tabular"]
    inputs: dict[str, Array]
    target: Array


@dataclass(frozen=True, slots=True)
class Data:
    """A whole data set in memory.

    `inputs`: an image set has {"image": uint8 [N, C, H, W]}, a table of numbers {"features": float32 [N, F]}, a CSV
    one array [N] a column: float32 with NaN where a number is missing, or str objects with "" where a text is.
    `target`: int64 positions in `classes`, or float32 where `classes` is None.
    `columns`: the inputs in order, the target last.
    """

    modality: Literal["image", "tabular"]
    inputs: dict[str, Array]
    target: Array
    classes: list[str] | None
    columns: tuple[Column, ...]

    @property
    def rows(self) -> int:
        return len(self.target)

    @property
    def input_columns(self) -> tuple[Column, ...]:
        return self.columns[:-1]

    @property
    def target_column(self) -> Column:
        return self.columns[-1]


def column_of(name: str, array: Array) -> Column:
    if array.dtype == object:
        return Column(name, "category")
    if array.ndim == 4:
        return Column(name, "image", tuple(array.shape[1:]))
    return Column(name, "number", tuple(array.shape[1:]) or None)

"""Columns → one row of floats, inside the graph: median for what is missing, standard scale, one place for each text.

Fitted on the training rows only. A number column gives its scaled value and, where training had gaps, a flag for
the gap. A text column gives one place for each of its most frequent values; one that training never saw is all zeros.
Texts cannot pass torch: `encode` numbers them in training, labels.py puts a LabelEncoder of the same table before the
graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from training.data.rows import Array, Data, Indices

MOST_VALUES = 256  # of a text column; rarer ones count as never seen
_FAR = 1e6  # deviations from the mean; further out is held there, so that every answer is finite


class Numbers(nn.Module):
    """float32 [N, F] with NaN → scaled values, then flags for those of the columns that had gaps in training."""

    median: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor
    gaps: torch.Tensor

    def __init__(self, values: Array) -> None:
        super().__init__()
        gaps = np.isnan(values)
        median = np.array([_median(column[~gap]) for column, gap in zip(values.T, gaps.T, strict=True)])
        filled = np.where(gaps, median, values.astype(np.float64))
        deviation = filled.std(axis=0)
        self.register_buffer("median", torch.tensor(median, dtype=torch.float32))
        self.register_buffer("mean", torch.tensor(filled.mean(axis=0), dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(_scale(deviation), dtype=torch.float32))
        self.register_buffer("gaps", torch.tensor(np.flatnonzero(gaps.any(axis=0)), dtype=torch.int64))
        self.width = values.shape[1] + len(self.gaps)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        gaps = torch.isnan(values)
        scaled = (torch.where(gaps, self.median, values) - self.mean) / self.deviation
        scaled = torch.clamp(scaled, -_FAR, _FAR)
        if not len(self.gaps):
            return scaled
        return torch.cat([scaled, gaps.index_select(1, self.gaps).to(scaled.dtype)], dim=1)


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _scale(deviation: Array) -> Array:
    """A constant column is left as it is; 1e-30 keeps what float32 can divide by."""
    return np.where(deviation > 1e-30, deviation, 1.0)


class FeaturesPreprocess(nn.Module):
    """The one matrix of an NPZ: float32 [N, F]."""

    def __init__(self, values: Array) -> None:
        super().__init__()
        self.numbers = Numbers(values)
        self.names = ("features",)
        self.vocabularies: dict[str, tuple[str, ...]] = {}
        self.input_shape = (self.numbers.width,)
        self.inputs: list[dict[str, Any]] = [{"name": "features", "datatype": "FP32", "shape": [-1, values.shape[1]]}]
        self.columns: list[str] | None = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.numbers(features)
        return out

    def encode(self, inputs: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
        return (torch.from_numpy(np.ascontiguousarray(inputs["features"], dtype=np.float32)),)


class ColumnsPreprocess(nn.Module):
    """Named columns of a CSV: float32 [N, 1] a number, int64 [N, 1] the code of a text, in the order of the columns."""

    def __init__(self, numbers: Mapping[str, Array], texts: Mapping[str, Sequence[str]], names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.columns: list[str] | None = list(names)
        self.vocabularies = {name: tuple(values) for name, values in texts.items()}
        self._codes = {
            name: {value: code for code, value in enumerate(values, 1)} for name, values in self.vocabularies.items()
        }
        self._number_places = [place for place, name in enumerate(self.names) if name in numbers]
        self._text_places = [(place, len(texts[name])) for place, name in enumerate(self.names) if name in texts]
        self.numbers = Numbers(np.stack(list(numbers.values()), axis=1)) if numbers else None
        width = (self.numbers.width if self.numbers else 0) + sum(size for _, size in self._text_places)
        self.input_shape = (width,)
        self.inputs: list[dict[str, Any]] = [
            {"name": name, "datatype": "FP32" if name in numbers else "BYTES", "shape": [-1, 1]} for name in self.names
        ]

    def forward(self, *columns: torch.Tensor) -> torch.Tensor:
        pieces = []
        if self.numbers is not None:
            pieces.append(self.numbers(torch.cat([columns[place] for place in self._number_places], dim=1)))
        for place, size in self._text_places:
            codes = torch.arange(1, size + 1)
            pieces.append((columns[place] == codes).to(torch.float32))  # code 0 is nobody's: all zeros
        return torch.cat(pieces, dim=1)

    def encode(self, inputs: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(self._encoded(name, inputs[name])).reshape(-1, 1) for name in self.names)

    def _encoded(self, name: str, values: Array) -> Array:
        if name not in self._codes:
            return np.ascontiguousarray(values, dtype=np.float32)
        code = self._codes[name].get
        return np.fromiter((code(value, 0) for value in values.reshape(-1).tolist()), dtype=np.int64, count=len(values))


def fit_features(data: Data, train: Indices) -> FeaturesPreprocess:
    return FeaturesPreprocess(data.inputs["features"][train])


def fit_columns(data: Data, train: Indices) -> ColumnsPreprocess:
    numbers, texts = {}, {}
    for column in data.input_columns:
        values = data.inputs[column.name][train]
        if column.type == "number":
            numbers[column.name] = values
        else:
            texts[column.name] = vocabulary(values)
    return ColumnsPreprocess(numbers, texts, [column.name for column in data.input_columns])


def vocabulary(values: Array) -> list[str]:
    """The most frequent texts in the order of the alphabet; the empty one, a missing value, is one of them."""
    counts = Counter(values.tolist())
    frequent = sorted(counts, key=lambda value: (-counts[value], value))[:MOST_VALUES]
    return sorted(frequent)

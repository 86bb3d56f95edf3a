"""Pictures as bytes → standardised floats, inside the graph: the served model takes uint8 as it is.

One mean and one deviation a channel, of the training rows only. Sizes are the data set's; nothing is resized here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from training.data.rows import Array, Data, Indices

_ROWS_AT_ONCE = 1024


class ImagePreprocess(nn.Module):
    """uint8 [N, C, H, W] → float32 [N, C, H, W] of mean 0 and deviation 1 a channel."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, shape: tuple[int, ...], mean: Array, deviation: Array) -> None:
        super().__init__()
        self.names = ("image",)
        self.vocabularies: dict[str, tuple[str, ...]] = {}
        self.input_shape = shape
        self.inputs: list[dict[str, Any]] = [{"name": "image", "datatype": "UINT8", "shape": [-1, *shape]}]
        self.columns: list[str] | None = None
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image.to(torch.float32) - self.mean) / self.deviation

    def encode(self, inputs: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
        return (torch.from_numpy(np.ascontiguousarray(inputs["image"])),)


def fit(data: Data, train: Indices) -> ImagePreprocess:
    images = data.inputs["image"]
    mean, deviation = _moments(images, train)
    return ImagePreprocess(tuple(images.shape[1:]), mean, np.where(deviation > 0, deviation, 1.0))


def _moments(images: Array, train: Indices) -> tuple[Array, Array]:
    """Exact: sums of bytes and of their squares are whole numbers; pieces bound the memory."""
    channels = images.shape[1]
    total, squares = np.zeros(channels, dtype=np.int64), np.zeros(channels, dtype=np.int64)
    for first in range(0, len(train), _ROWS_AT_ONCE):
        piece = images[train[first : first + _ROWS_AT_ONCE]]
        total += piece.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += np.square(piece, dtype=np.uint16).sum(axis=(0, 2, 3), dtype=np.int64)
    count = len(train) * images.shape[2] * images.shape[3]
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))

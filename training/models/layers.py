"""A list of layers: the shapes that flow through it, and the torch module that computes it.

Shapes are plain arithmetic, so that a spec is checked against a data set without importing torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from training.spec.model import Conv2d, Dropout, Layer, Linear, Pool

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]


class LayerMisfit(Exception):
    """A layer that cannot take what the layer before it gives."""

    def __init__(self, index: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.index = index
        self.message = message
        self.hint = hint


def shapes(layers: Sequence[Layer], shape: Shape) -> list[Shape]:
    """The shape before each layer and after the last; LayerMisfit names the first that does not fit."""
    found = [shape]
    for index, layer in enumerate(layers):
        found.append(_after(index, layer, found[-1]))
    return found


def _after(index: int, layer: Layer, shape: Shape) -> Shape:
    if isinstance(layer, Conv2d | Pool):
        if len(shape) != 3:
            raise LayerMisfit(index, f"{layer.op} needs an image, gets {_shown(shape)}", "use linear")
        stride = layer.stride or layer.kernel
        height, width = ((side - layer.kernel) // stride + 1 for side in shape[1:])
        if min(height, width) < 1:
            hint = "a smaller kernel, fewer layers or larger images"
            raise LayerMisfit(index, f"a kernel of {layer.kernel} does not fit {_shown(shape)}", hint)
        return (layer.out if isinstance(layer, Conv2d) else shape[0], height, width)
    if isinstance(layer, Linear):
        if len(shape) != 1:
            raise LayerMisfit(index, f"linear needs flat values, gets {_shown(shape)}", "put flatten before it")
        return (layer.out,)
    return (prod(shape),) if layer.op == "flatten" else shape


def _shown(shape: Shape) -> str:
    return "×".join(str(side) for side in shape)


def build(layers: Sequence[Layer], shape: Shape) -> nn.Sequential:
    """The module, its weights drawn from torch's generator as torch's own layers draw them."""
    from torch import nn

    before = shapes(layers, shape)
    return nn.Sequential(*(_module(layer, given) for layer, given in zip(layers, before, strict=False)))


def _module(layer: Layer, given: Shape) -> nn.Module:
    from torch import nn

    if isinstance(layer, Conv2d):
        return nn.Conv2d(given[0], layer.out, layer.kernel, layer.stride)
    if isinstance(layer, Linear):
        return nn.Linear(given[0], layer.out)
    if isinstance(layer, Pool):
        pool = nn.MaxPool2d if layer.op == "max_pool" else nn.AvgPool2d
        return pool(layer.kernel, layer.stride)
    if isinstance(layer, Dropout):
        return nn.Dropout(layer.p)
    plain: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "leaky_relu": nn.LeakyReLU,
        "flatten": nn.Flatten,
    }
    return plain[layer.op]()

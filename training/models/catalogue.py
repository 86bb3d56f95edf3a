"""From the spec's model section to layers, and from layers and the data's shape to a network. No torch at import.

Names and spelled-out layers become the same list, so that both are one network to everything that follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.models.layers import LayerMisfit, Shape, build, shapes
from training.models.lenet import lenet
from training.models.mlp import linear, mlp
from training.spec.model import CatalogueModel, Layer, LayeredModel

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Misfit", "check", "layers_of", "network"]


class Misfit(Exception):
    """The network of the spec cannot learn from data of this shape; `path` points into the spec."""

    def __init__(self, path: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.hint = hint


def layers_of(model: CatalogueModel | LayeredModel, outputs: int) -> list[Layer]:
    """The layers that a model section means; `outputs` is the number of classes, 1 for a regression."""
    if isinstance(model, LayeredModel):
        return list(model.layers)
    if model.name == "lenet":
        return lenet(outputs, model.width)
    if model.name == "mlp":
        return mlp(outputs, model.width, model.depth or 1)
    return linear(outputs)


def check(model: CatalogueModel | LayeredModel, shape: Shape, outputs: int) -> list[Layer]:
    """The layers, known to fit the data; Misfit otherwise."""
    layers = layers_of(model, outputs)
    try:
        answer = shapes(layers, shape)[-1]
    except LayerMisfit as misfit:
        if isinstance(model, LayeredModel):
            raise Misfit(f"/model/layers/{misfit.index}", misfit.message, misfit.hint) from None
        size = "×".join(str(side) for side in shape)
        raise Misfit(
            "/model/name", f"{model.name} does not fit data of shape {size}: {misfit.message}", "use mlp"
        ) from None
    if answer != (outputs,):
        last = len(layers) - 1
        message = f"the last layer gives {'×'.join(map(str, answer))} values, the data need {outputs}"
        raise Misfit(f"/model/layers/{last}", message, f"let it be linear with out {outputs}")
    return layers


def network(model: CatalogueModel | LayeredModel, shape: Shape, outputs: int) -> nn.Sequential:
    """The network, its weights drawn from torch's generator."""
    return build(check(model, shape, outputs), shape)

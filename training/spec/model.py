"""The spec's section about the network: a name of the catalogue, or a list of layers from a closed list of operators.

No user code, ever. Shapes are checked by `training.models.layers`, once the shape of the data is known.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.spec.data import Section
from training.spec.problems import Planned

Width = Annotated[int, Field(ge=1, le=65_536)]
Kernel = Annotated[int, Field(ge=1, le=63)]
Stride = Annotated[int, Field(ge=1, le=63)]
PLANNED_OPERATORS = ("conv1d", "softmax", "global_pool", "batch_norm", "layer_norm", "embedding", "residual")


class Conv2d(Section):
    """A convolution without padding, with bias."""

    op: Literal["conv2d"]
    out: Width
    kernel: Kernel
    stride: Stride = 1


class Linear(Section):
    """A full connection with bias."""

    op: Literal["linear"]
    out: Width


class Pool(Section):
    """The largest or the mean value of each window; the stride is the kernel unless said otherwise."""

    op: Literal["max_pool", "avg_pool"]
    kernel: Kernel = 2
    stride: Stride | None = None


class Dropout(Section):
    """Sets a share of the values to zero while training."""

    op: Literal["dropout"]
    p: Annotated[float, Field(ge=0, lt=1)] = 0.5


class Elementwise(Section):
    """An activation, or `flatten`: operators without a parameter."""

    op: Literal["relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "flatten"]


Layer = Annotated[
    Conv2d | Linear | Pool | Dropout | Elementwise, Field(discriminator="op"), Planned(*PLANNED_OPERATORS)
]


class CatalogueModel(Section):
    """A network by name. `width` multiplies the hidden sizes; `depth` is the number of hidden layers of `mlp`."""

    planned = ("start_from", "freeze", "adapter")

    kind: Literal["catalogue"] = "catalogue"
    name: Annotated[Literal["lenet", "mlp", "linear"], Planned("auto")]
    width: Annotated[float, Field(gt=0, le=64)] = 1.0
    depth: Annotated[int, Field(ge=1, le=32)] | None = None

    def filled(self) -> CatalogueModel:
        """With the depth that `mlp` has unless said otherwise."""
        return self.model_copy(update={"depth": self.depth or 1}) if self.name == "mlp" else self


class LayeredModel(Section):
    """A network spelled out, the last layer's `out` being the number of classes (regression: 1)."""

    planned = ("start_from", "freeze", "adapter")

    kind: Literal["layers"]
    layers: Annotated[list[Layer], Field(min_length=1, max_length=256)]

    def filled(self) -> LayeredModel:
        """With the stride of every pool."""
        layers = [
            layer.model_copy(update={"stride": layer.stride or layer.kernel}) if isinstance(layer, Pool) else layer
            for layer in self.layers
        ]
        return self.model_copy(update={"layers": layers})


Model = Annotated[CatalogueModel | LayeredModel, Field(discriminator="kind")]

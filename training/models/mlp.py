"""Networks of linear layers: `mlp` with hidden layers of 128, `linear` with none (logistic or linear regression)."""

from __future__ import annotations

from training.spec.model import Elementwise, Layer, Linear

HIDDEN = 128


def mlp(outputs: int, width: float = 1.0, depth: int = 1) -> list[Layer]:
    """`depth` hidden layers with relu; images are flattened first."""
    hidden: list[Layer] = [Linear(op="linear", out=max(1, round(HIDDEN * width))), Elementwise(op="relu")]
    return [Elementwise(op="flatten"), *hidden * depth, Linear(op="linear", out=outputs)]


def linear(outputs: int) -> list[Layer]:
    """One linear layer on the flattened input."""
    return [Elementwise(op="flatten"), Linear(op="linear", out=outputs)]

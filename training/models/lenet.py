"""LeNet for small images: two convolutions, each with relu and pooling, then three linear layers.

At width 1 on 3×32×32 and ten classes it is the founding example, with 62,006 parameters.
"""

from __future__ import annotations

from training.spec.model import Conv2d, Elementwise, Layer, Linear, Pool


def lenet(outputs: int, width: float = 1.0) -> list[Layer]:
    """The layers; `width` multiplies every hidden size."""
    first, second, third, fourth = (max(1, round(size * width)) for size in (6, 16, 120, 84))
    relu = Elementwise(op="relu")
    return [
        Conv2d(op="conv2d", out=first, kernel=5),
        relu,
        Pool(op="max_pool", kernel=2, stride=2),
        Conv2d(op="conv2d", out=second, kernel=5),
        relu,
        Pool(op="max_pool", kernel=2, stride=2),
        Elementwise(op="flatten"),
        Linear(op="linear", out=third),
        relu,
        Linear(op="linear", out=fourth),
        relu,
        Linear(op="linear", out=outputs),
    ]

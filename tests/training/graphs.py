"""ONNX graphs for the tests of import: a residual network of our own, exported by torch, and small ones by hand."""

from __future__ import annotations

import functools
import itertools
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

Value = tuple[str, int, Sequence[int | str]]


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


class Residual(nn.Module):
    """ResNet-18's plan: a stem, four stages of two blocks, the mean over the picture, one linear layer; narrower."""

    def __init__(self, classes: int = 7, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        blocks: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            blocks += [Block(before, after, 1 if before == after else 2), Block(after, after, 1)]
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(8 * width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(image)).mean((2, 3)))


@functools.cache
def residual() -> tuple[bytes, Residual]:
    torch.manual_seed(0)
    network = Residual().eval()
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, 64, 64),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            opset_version=20,
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        )
    assert program is not None
    return program.model_proto.SerializeToString(), network


def weights(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def made(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value] = (("x", TensorProto.FLOAT, ("n", 4)),),
    outputs: Sequence[Value] = (("y", TensorProto.FLOAT, ("n", 4)),),
    initializers: Sequence[TensorProto] = (),
    *,
    opset: int = 20,
    ir: int = 10,
    domains: Sequence[tuple[str, int]] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        list(initializers),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*one) for one in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def node(operator: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def linear(width: int = 3, **options: Any) -> onnx.ModelProto:
    """x [n, 4] · w → y [n, width]."""
    values = np.arange(4 * width, dtype=np.float32).reshape(4, width) / 10
    return made(
        [node("MatMul", "x w")],
        outputs=[("y", TensorProto.FLOAT, ("n", width))],
        initializers=[weights("w", values)],
        **options,
    )

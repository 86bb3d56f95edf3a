"""Zips of a graph and the files of its weights, as exporters make them and as nobody should."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import onnx

from tests.training.making import archive
from training.importing import external
from training.importing.bundle import Imported


def apart(model: onnx.ModelProto, location: str = "weights.bin") -> tuple[onnx.ModelProto, bytes]:
    """The model with every tensor of its outermost graph in one file, one after the other."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    content = bytearray()
    for tensor in moved.graph.initializer:
        data = tensor.raw_data
        tensor.ClearField("raw_data")
        lie(tensor, location=location, offset=len(content), length=len(data))
        content += data
    return moved, bytes(content)


def lie(tensor: onnx.TensorProto, **fields: Any) -> None:
    """The tensor says that it lies outside, there."""
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=str(value))


def zipped(model: onnx.ModelProto, files: Mapping[str, bytes], name: str = "model.onnx", **options: Any) -> io.BytesIO:
    return io.BytesIO(archive({name: model.SerializeToString(), **files}, **options))


def take_in(file: io.BytesIO, task: str = "other", classes: list[str] | None = None) -> Imported:
    return external.take_in(file, task=task, classes=classes, threads=1)

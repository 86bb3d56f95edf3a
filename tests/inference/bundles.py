"""Bundles for the tests: a graph's tensors moved out of it by hand, and the whole written from the page."""

from __future__ import annotations

import onnx

from tests.inference.make_bundle_vectors import good


def apart(model: bytes, location: str = "weights") -> tuple[bytes, bytes]:
    """The graph with every initializer outside, and those bytes, each at a multiple of 64."""
    graph = onnx.load_from_string(model)
    weights = bytearray()
    for tensor in graph.graph.initializer:
        content = tensor.raw_data
        weights += bytes(-len(weights) % 64)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", len(weights)), ("length", len(content))):
            tensor.external_data.add(key=key, value=str(value))
        weights += content
    return graph.SerializeToString(), bytes(weights)


def bundled(model: bytes) -> bytes:
    graph, weights = apart(model)
    return good({"graph": graph, "weights": weights})

"""Models that somebody else made: looked through, tried, and given the outputs that their task promises.

    model = check(data)                     # one ONNX file: standard operators, nothing outside itself
    served, signature = adopt(model, …)     # tried on made-up rows, its outputs as the contract has them
    external.take_in(file, …)               # the same for a zip of a graph and the files of its weights
    encoder.take_in(file, …)                # a BERT encoder's folder in a zip

It runs in the sandbox and knows no jobs and no keys, and no torch but to prove an encoder.
"""

from __future__ import annotations

from training.importing import encoder, external
from training.importing.adopt import adopt
from training.importing.bundle import Imported, Parts
from training.importing.structure import MOST_BYTES, check, parameters, weights_sha256

__all__ = [
    "MOST_BYTES",
    "Imported",
    "Parts",
    "adopt",
    "check",
    "encoder",
    "external",
    "parameters",
    "weights_sha256",
]

"""An ONNX file that somebody else made: looked through, tried, and given the outputs that its task promises.

    model = check(data)                     # a graph of standard operators, nothing outside itself
    served, signature = adopt(model, …)     # tried on made-up rows, its outputs as the contract has them

It runs in the sandbox and knows no jobs, no keys and no torch.
"""

from __future__ import annotations

from training.importing.adopt import adopt
from training.importing.structure import MOST_BYTES, check, parameters, weights_sha256

__all__ = ["MOST_BYTES", "adopt", "check", "parameters", "weights_sha256"]

"""Kind `import`: an ONNX file that was uploaded is checked, tried, and sealed again as the model of a version.

What is sealed are the very bytes that were run here, never those that came. Knows the channel, no graph.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training import importing
from training.errors import ImportRefused
from training.watching import while_watching

if TYPE_CHECKING:
    from training.channel import Channel, Start


def run(start: Start, channel: Channel) -> dict[str, Any]:
    """Seals `model` and `result`; ImportRefused where the file cannot be served."""
    reader = start.reader("model")
    if reader.size_bytes > importing.MOST_BYTES:
        raise ImportRefused(f"the file has {reader.size_bytes} bytes", "2 GiB are the most", code="onnx_too_large")
    served, facts = while_watching(lambda: _adopted(start, bytes(reader.read())), channel.stop_if_wanted)
    channel.progress(force=True, fraction=0.8, items=0, items_total=1)
    channel.seal("model", served, {"format": "onnx"})
    channel.seal("result", json.dumps(facts, ensure_ascii=False, allow_nan=False).encode(), {})
    channel.progress(force=True, fraction=1.0, items=1, items_total=1)
    return {"metrics": {}, "state": "ready", "reasons": []}


def _adopted(start: Start, data: bytes) -> tuple[bytes, dict[str, Any]]:
    model = importing.check(data)
    spec = start.spec
    served, signature = importing.adopt(model, task=spec["task"], classes=spec.get("classes"), threads=start.threads)
    return served, {
        "signature": signature,
        "evaluation": None,
        "metrics": {},
        "parameters": importing.parameters(model),
        "weights_sha256": importing.weights_sha256(model),
        "torch_version": None,
        "threads": start.threads,
        "task": signature["task"],
    }

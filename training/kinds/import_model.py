"""Kind `import`: a model that was uploaded is checked, tried, and sealed again as the model of a version.

What is sealed are the very bytes that were run here, never those that came. Knows the channel and which task takes
which format, no graph and no tokenizer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training import importing
from training.errors import ImportRefused
from training.watching import while_watching

if TYPE_CHECKING:
    from sealing import SealWriter
    from training.channel import Channel, Start

LANGUAGE_FORMATS = ("gguf", "safetensors-zip")


def run(start: Start, channel: Channel) -> dict[str, Any]:
    """Seals `model` and `result`; ImportRefused where the file cannot be served."""
    if start.spec["task"] == "generation":
        return _language(start, channel)
    return _arrays(start, channel)


def _language(start: Start, channel: Channel) -> dict[str, Any]:
    format = start.about["format"]
    if format not in LANGUAGE_FORMATS:
        raise ImportRefused(
            f"the file is {format}, and the task is generation",
            f"bring {' or '.join(LANGUAGE_FORMATS)}, or choose another task",
            code="import_format",
        )
    try:
        from training.language import importing as language  # the extra `language` may not be installed
    except ImportError:
        raise ImportRefused(
            "this worker takes in no language models",
            "install the extra `language` on the platform (make language)",
            code="language_missing",
        ) from None
    write, facts = language.take_in(
        start.reader("model"), format, start.spec, threads=start.threads, watch=channel.stop_if_wanted
    )
    channel.progress(force=True, fraction=0.8, items=0, items_total=1)
    channel.seal("model", write, {"format": "gguf"})
    card = facts["card"]
    result = {
        "format": "gguf",
        "signature": {
            "kind": "language",
            "context_length": card["context_length"],
            "vocabulary": card["vocabulary"],
            "chat": card["chat_template"],
            "tools": card["tools"],
            "weights_sha256": facts["weights_sha256"],
        },
        "card": {**card, "report": facts["report"]},
        "parameters": facts["parameters"],
        "weights_sha256": facts["weights_sha256"],
        "metrics": {},
        "evaluation": None,
        "torch_version": None,
        "threads": start.threads,
    }
    return _sealed(channel, result)


def _arrays(start: Start, channel: Channel) -> dict[str, Any]:
    imported = while_watching(lambda: _taken_in(start), channel.stop_if_wanted)
    channel.progress(force=True, fraction=0.8, items=0, items_total=1)

    def write(writer: SealWriter) -> None:
        for piece in imported.parts.pieces():
            channel.stop_if_wanted()
            writer.write(piece)

    channel.seal("model", write, {"format": "onnx"})
    result = {
        "format": "onnx",
        "signature": imported.signature,
        "card": imported.card,
        "parameters": imported.parameters,
        "weights_sha256": imported.weights_sha256,
        "metrics": {},
        "evaluation": None,
        "torch_version": None,
        "threads": start.threads,
        "task": imported.signature["task"],
    }
    return _sealed(channel, result)


def _taken_in(start: Start) -> importing.Imported:
    reader, format, spec = start.reader("model"), start.about["format"], start.spec
    classes = spec.get("classes")
    if format == "onnx-zip":
        return importing.external.take_in(reader.file(), task=spec["task"], classes=classes, threads=start.threads)
    if format == "safetensors-zip" and spec["task"] == "embedding":
        return importing.encoder.take_in(reader.file(), threads=start.threads)
    if format != "onnx":
        raise ImportRefused(
            f"the file is {format}, and the task is {spec['task']}",
            "bring ONNX, or a folder of safetensors for the task embedding, or choose the task generation",
            code="import_format",
        )
    if reader.size_bytes > importing.MOST_BYTES:
        raise ImportRefused(f"the file has {reader.size_bytes} bytes", "2 GiB are the most", code="onnx_too_large")
    model = importing.check(bytes(reader.read()))
    served, signature = importing.adopt(model, task=spec["task"], classes=classes, threads=start.threads)
    return importing.Imported(
        parts=importing.Parts(served),
        signature=signature,
        parameters=importing.parameters(model),
        weights_sha256=importing.weights_sha256(model),
    )


def _sealed(channel: Channel, facts: dict[str, Any]) -> dict[str, Any]:
    channel.seal("result", json.dumps(facts, ensure_ascii=False, allow_nan=False).encode(), {})
    channel.progress(force=True, fraction=1.0, items=1, items_total=1)
    return {"metrics": {}, "state": "ready", "reasons": []}

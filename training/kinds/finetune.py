"""Kind `finetune`: examples and a language model in, an adapter that was proved by llama.cpp and its facts out.

Knows the channel; how it is learned is training/finetune's.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from training.data import chat_jsonl
from training.data.chat_jsonl import Conversations
from training.errors import DataRefused, DatasetContradictsSpec, JobError
from training.spec import FinetuneSpec, load
from training.watching import while_watching

if TYPE_CHECKING:
    from sealing import SealWriter
    from training.channel import Channel, Start
    from training.language.memory_file import MemoryFile
    from training.loop import Progress


def run(start: Start, channel: Channel) -> dict[str, Any]:
    """Seals `model` (format lora) and `result`; a failed proof makes the version `rejected`."""
    # Read when torch is imported, which is here: threads wait asleep. Two of them meet after every matrix; on a busy
    # machine a step takes a fifth of the time so.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:  # the extra `language` may not be installed
        from training.finetune.tune import Outside, tune

        if importlib.util.find_spec("llama_cpp") is None:
            raise ImportError
    except ImportError:
        raise JobError(
            "this worker teaches no language models",
            "install the extra `language` on the platform (make language)",
            code="language_missing",
        ) from None
    spec = load(start.spec)
    if not isinstance(spec, FinetuneSpec):
        raise TypeError("not a document of kind finetune")
    data = while_watching(partial(_rows, spec, start), channel.stop_if_wanted)

    def progress(news: Progress) -> None:
        channel.progress(force=bool(news.metrics), **asdict(news), fraction=news.fraction)

    def keep(blob: memoryview, about: dict[str, int]) -> None:
        channel.seal("checkpoint", lambda writer: writer.write(blob), about)

    tuned = tune(
        spec,
        data,
        start.reader("base"),
        Outside(channel.control, progress, partial(channel.log, "info"), keep),
        resume=None if start.resume is None else start.opened(start.resume).read(),
        threads=start.threads,
        memory_bytes=start.memory_bytes,
    )
    channel.seal("model", partial(_write, tuned.adapter), {"format": "lora"})
    channel.seal("result", json.dumps(tuned.facts, ensure_ascii=False, allow_nan=False).encode(), {})
    state = "rejected" if tuned.reasons else "ready"
    return {"metrics": tuned.facts["metrics"], "state": state, "reasons": tuned.reasons}


def _write(file: MemoryFile, writer: SealWriter) -> None:
    for piece in file.pieces():
        writer.write(piece)


def _rows(spec: FinetuneSpec, start: Start) -> Conversations:
    """The data set, which passed its check."""
    wanted, found = spec.dataset.fingerprint, start.about.get("fingerprint")
    if wanted is not None and found is not None and wanted != found:
        raise DatasetContradictsSpec("the data set's fingerprint is not the one in the spec", f"it is {found}")
    if (format := start.about.get("format")) != chat_jsonl.FORMAT:
        hint = f"upload conversations as {chat_jsonl.FORMAT}"
        raise DatasetContradictsSpec(f"the data set is {format}, from which no language model learns", hint)
    try:
        return chat_jsonl.load(start.reader("dataset"), start.about)
    except DataRefused as refused:
        raise DatasetContradictsSpec(refused.message, refused.hint) from refused

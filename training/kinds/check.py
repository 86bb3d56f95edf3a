"""Kind `check`: reads a data set that was uploaded and writes down what it is, or says precisely why it is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training.data import Data, chat_jsonl, load, profile
from training.watching import while_watching

if TYPE_CHECKING:
    from training.channel import Channel, Start

STEPS = 3  # read, looked through, written down


def run(start: Start, channel: Channel) -> dict[str, Any]:
    """Seals the profile; DataRefused where the file is not what it says."""
    read = chat_jsonl.load if start.about.get("format") == chat_jsonl.FORMAT else load
    data = while_watching(lambda: read(start.reader("dataset"), start.about), channel.stop_if_wanted)
    channel.progress(force=True, fraction=1 / STEPS, items=0, items_total=data.rows)
    document = while_watching(lambda: _profile(data), channel.stop_if_wanted)
    channel.progress(force=True, fraction=2 / STEPS, items=data.rows, items_total=data.rows)
    channel.seal("profile", json.dumps(document, ensure_ascii=False, allow_nan=False).encode(), {})
    channel.log("info", f"{data.rows} rows, {len(document['columns'])} columns, {len(document['warnings'])} warnings")
    return {"rows": data.rows}


def _profile(data: Data | chat_jsonl.Conversations) -> dict[str, Any]:
    return chat_jsonl.profile(data) if isinstance(data, chat_jsonl.Conversations) else profile(data)

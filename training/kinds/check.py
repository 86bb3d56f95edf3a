"""Kind `check`: reads a data set that was uploaded and writes down what it is, or says precisely why it is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training.data import load, profile
from training.watching import while_watching

if TYPE_CHECKING:
    from training.channel import Channel, Start

STEPS = 3  # read, looked through, written down


def run(start: Start, channel: Channel) -> dict[str, Any]:
    """Seals the profile; DataRefused where the file is not what it says."""
    data = while_watching(lambda: load(start.reader("dataset"), start.about), channel.stop_if_wanted)
    channel.progress(force=True, fraction=1 / STEPS, items=0, items_total=data.rows)
    document = while_watching(lambda: profile(data), channel.stop_if_wanted)
    channel.progress(force=True, fraction=2 / STEPS, items=data.rows, items_total=data.rows)
    channel.seal("profile", json.dumps(document, ensure_ascii=False, allow_nan=False).encode(), {})
    channel.log("info", f"{data.rows} rows, {len(document['columns'])} columns, {len(document['warnings'])} warnings")
    return {"rows": data.rows}

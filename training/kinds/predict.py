"""Kind `predict` over a data set: reads it, has its rows answered by the node's cell, and seals the answers.

There is no engine here: batches go up to the parent, which asks the cell; one JSON Lines artefact comes out, a line a
row, in order. The parent sends ready lines (the one BYTES tensor `predictions`), which are written as they are; of any
other tensors a line has the row's values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from training import tensors
from training.data import Array, Data, load
from training.watching import while_watching

if TYPE_CHECKING:
    from sealing import SealWriter
    from training.channel import Channel, Start

LINES = "predictions"
_BATCH_ROWS = 64
_BATCH_BYTES = 4 * 2**20
_AHEAD = 2  # batches under way: the cell computes one while the next is packed


def run(start: Start, channel: Channel) -> dict[str, Any]:
    """Seals the artefact `output`."""
    data = while_watching(lambda: load(start.reader("dataset"), start.about), channel.stop_if_wanted)
    channel.seal("output", lambda writer: _answer(data, channel, writer), {"rows": data.rows})
    return {"rows": data.rows}


def _answer(data: Data, channel: Channel, writer: SealWriter) -> None:
    waiting: list[int] = []  # rows of the batches under way
    answered = 0
    for number, inputs in enumerate(batches(data)):
        channel.stop_if_wanted()
        channel.batch(number, *tensors.pack(inputs))
        waiting.append(len(next(iter(inputs.values()))))
        if len(waiting) == _AHEAD:
            answered = _take(channel, writer, waiting.pop(0), answered, data.rows)
    while waiting:
        answered = _take(channel, writer, waiting.pop(0), answered, data.rows)


def batches(data: Data) -> Iterator[dict[str, Array]]:
    """The inputs of the rows in order, in the shapes of the signature: [N, 1] a column."""
    step = batch_rows(data)
    for first in range(0, data.rows, step):
        yield {name: _matrix(values[first : first + step]) for name, values in data.inputs.items()}


def batch_rows(data: Data) -> int:
    row_bytes = sum(values[:1].nbytes for values in data.inputs.values())
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))


def _matrix(values: Array) -> Array:
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _take(channel: Channel, writer: SealWriter, rows: int, answered: int, total: int) -> int:
    _, described, body = channel.outputs()
    for line in lines(tensors.unpack(described, body), rows):
        writer.write(line + b"\n")
    answered += rows
    channel.progress(fraction=answered / total, items=answered, items_total=total, force=answered == total)
    return answered


def lines(outputs: dict[str, Array], rows: int) -> list[bytes]:
    """One line of JSON a row."""
    if list(outputs) == [LINES] and outputs[LINES].shape == (rows,):
        found: list[bytes] = outputs[LINES].tolist()
        return found
    if any(len(values) != rows for values in outputs.values()):
        raise ValueError("the outputs have another number of rows than the batch")
    return [
        json.dumps({"outputs": {name: _plain(values[row]) for name, values in outputs.items()}}).encode()
        for row in range(rows)
    ]


def _plain(value: Any) -> Any:
    """A row of a tensor as JSON has it: texts for bytes, null for what is not finite."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(inner) for inner in value]
    plain = value.item()
    return None if plain != plain or plain in (float("inf"), float("-inf")) else plain

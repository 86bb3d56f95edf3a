"""A model's outputs → predictions as the native API says them: labels, scores, values, vectors.

Applies the deployment's output policy (`top_k`, `decimals`, `scores`). Knows no HTTP and no JSON text; what it returns
is plain lists, dicts, strings and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.protocol import Array
from inference.signature import Signature

Prediction = dict[str, Any]
SMALL = 64  # scores; numpy's five calls cost 7 µs however few there are, plain Python less than 2


def predictions(
    signature: Signature, outputs: Mapping[str, Array], policy: Mapping[str, Any] | None = None
) -> list[Prediction]:
    """One prediction per item of the batch."""
    policy = policy or {}
    first = next(iter(outputs.values()))
    if signature.task == "classification" and first.ndim == 2 and first.shape[1] and first.dtype.kind == "f":
        return _classified(signature, first, policy)
    decimals = policy.get("decimals")
    if signature.task == "regression" and first.ndim <= 2 and first.dtype.kind in "iuf":
        column = first.reshape(len(first), -1)
        values = column[:, 0] if column.shape[1] == 1 else column
        return [{"value": value} for value in _plain(values, decimals)]
    if signature.task == "embedding" and first.ndim == 2:
        return [{"vector": vector} for vector in _plain(first, decimals)]
    return _others(outputs, decimals)


def _classified(signature: Signature, scores: Array, policy: Mapping[str, Any]) -> list[Prediction]:
    labels = signature.classes or ()
    if len(labels) != scores.shape[1]:
        labels = tuple([str(index) for index in range(scores.shape[1])])
    decimals = policy.get("decimals")
    if scores.size <= SMALL and decimals is None:  # rounding makes ties
        rows = scores.tolist()
        if not _sum_to_one(rows):
            rows = probabilities(scores).tolist()
        best = [row.index(max(row)) for row in rows]
    else:
        scores = probabilities(scores)
        rows = _plain(scores, decimals)
        best = scores.argmax(axis=1).tolist()
    top_k, shown = policy.get("top_k"), policy.get("scores", True) is not False
    return [
        {
            "label": labels[winner],
            "score": row[winner],
            "scores": _top(labels, row, top_k) if shown else None,
        }
        for row, winner in zip(rows, best, strict=True)
    ]


def probabilities(scores: Array) -> Array:
    """The scores themselves where each row sums to 1, else their softmax (an imported model may give logits)."""
    if scores.size and _are_probabilities(scores):
        return scores
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float64)
    softened: Array = exponents / exponents.sum(axis=1, keepdims=True)
    return softened


def _sum_to_one(rows: list[list[float]]) -> bool:
    for row in rows:
        if not (row and min(row) >= 0 and abs(sum(row) - 1) < 1e-3):
            return False
    return bool(rows)


def _are_probabilities(scores: Array) -> bool:
    if scores.size <= SMALL:
        return _sum_to_one(scores.tolist())
    return bool(scores.min() >= 0 and np.abs(scores.sum(axis=1, dtype=np.float64) - 1).max() < 1e-3)


def _top(labels: tuple[str, ...], row: list[float], top_k: int | None) -> dict[str, float]:
    if not top_k or top_k >= len(row):
        return dict(zip(labels, row, strict=True))
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:top_k]
    return {labels[index]: row[index] for index in order}


def _others(outputs: Mapping[str, Array], decimals: int | None) -> list[Prediction]:
    columns = {name: _plain(array, decimals) for name, array in outputs.items()}
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if len(lengths) != 1 or -1 in lengths:  # outputs that do not share a batch axis: one prediction holds them whole
        return [{"outputs": columns}]
    return [{"outputs": {name: column[index] for name, column in columns.items()}} for index in range(lengths.pop())]


def _plain(array: Array, decimals: int | None) -> Any:
    if array.dtype.kind == "f" and decimals is not None:
        array = array.astype(np.float64).round(decimals)
    if array.dtype.kind in "OS":
        return _text(array.tolist())
    return array.tolist()


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(element) for element in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

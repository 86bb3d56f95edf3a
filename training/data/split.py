"""Which rows train, which choose and which judge: a pure function of the target, the fractions and the seed.

`stratified` gives every class its share in every part, rounded up or down by less than one row, and evens out over the
classes what the rounding leaves; a target of numbers is cut into ten bands of equal size that stand for classes.
Draws come from PCG64's raw stream, which numpy keeps for ever, unlike its shuffles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.data.rows import Array, Data, Indices
from training.errors import DatasetContradictsSpec

Parts = tuple[Indices, Indices, Indices]
NAMES = ("training", "validation", "test")
_BANDS = 10


def split(data: Data, spec: Mapping[str, Any]) -> Parts:
    """Row numbers of training, validation and test, ascending. `spec`: method, fractions, seed."""
    fractions = [float(fraction) for fraction in spec["fractions"]]
    groups = _groups(data, str(spec["method"]))
    parts = _parts(groups, _order(data.rows, int(spec["seed"])), fractions)
    for name, part in zip(NAMES, parts, strict=True):
        if not len(part):
            raise DatasetContradictsSpec(
                f"of {data.rows} rows the fractions {fractions} leave none for the {name} part",
                "add rows, or choose other split.fractions",
            )
    return parts


def _groups(data: Data, method: str) -> Array:
    if method == "random":
        return np.zeros(data.rows, dtype=np.int64)
    if data.classes is not None:
        return data.target
    ranks = np.empty(data.rows, dtype=np.int64)
    ranks[np.argsort(data.target, kind="stable")] = np.arange(data.rows)
    return ranks * min(_BANDS, data.rows) // data.rows


def _order(rows: int, seed: int) -> Indices:
    """A permutation: the rows by a random key each."""
    keys = np.random.PCG64(seed).random_raw(rows)
    return np.argsort(keys, kind="stable").astype(np.int64)


def _parts(groups: Array, order: Indices, fractions: Sequence[float]) -> Parts:
    taken: list[list[Indices]] = [[], [], []]
    owed = [0.0, 0.0, 0.0]
    by_group = order[np.argsort(groups[order], kind="stable")]
    ends = np.cumsum(np.bincount(groups))
    for first, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        begin = first
        for part, count in enumerate(_counts(end - first, fractions, owed)):
            taken[part].append(by_group[begin : begin + count])
            begin += count
    first_part, second, third = (np.sort(np.concatenate(pieces)) for pieces in taken)
    return first_part, second, third


def _counts(rows: int, fractions: Sequence[float], owed: list[float]) -> list[int]:
    """How many of a group's rows go to each part. `owed` carries over what rounding took from a part so far."""
    exact = [rows * fraction for fraction in fractions]
    counts = [int(share + 1e-9) for share in exact]
    wanting = [part for part in range(len(exact)) if exact[part] - counts[part] > 1e-9]
    wanting.sort(key=lambda part: counts[part] - exact[part] - owed[part])
    for part in wanting[: rows - sum(counts)]:
        counts[part] += 1
    for part, share in enumerate(exact):
        owed[part] += share - counts[part]
    return counts

"""One figure of a benchmark and the table of all: name, value, unit, baseline and ratio, the last two where measured.

A ratio compares two things of the same run on the same machine; absolute figures compare with nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """`baseline` is in the same unit; `ratio` is value ÷ baseline."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None

    @classmethod
    def against(cls, name: str, value: float, unit: str, baseline: float) -> Figure:
        return cls(name, value, unit, baseline, value / baseline)


def table(figures: Sequence[Figure]) -> str:
    """The figures as text, one a line."""
    rows = [("figure", "value", "unit", "baseline", "ratio")]
    rows += [(f.name, _short(f.value), f.unit, _short(f.baseline), _short(f.ratio)) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    numeric = {1, 3, 4}
    return "\n".join(
        "  ".join(
            text.rjust(w) if i in numeric else text.ljust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write(figures: Sequence[Figure], path: Path) -> None:
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")

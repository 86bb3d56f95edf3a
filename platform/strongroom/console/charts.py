"""A job's metrics as curves: one chart a metric, one line a part, bounded whatever the number of epochs.

The points travel in a data attribute of the page's moving part; static/console/charts.js draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

POINTS = 300  # of a line: more than a screen has room for
METRICS = ("loss", "accuracy", "r2", "perplexity", "margin")  # the last two of a language model
PARTS = ("train", "validation")  # the test part is judged once, at the end
Line = list[tuple[float, float]]


def curves(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Line]]:
    """{"loss": {"train": [(epoch, value), …], "validation": …}, "accuracy": …} from metric events, oldest first."""
    found: dict[str, dict[str, Line]] = {}
    for event in events:
        part, _, metric = event["name"].partition("/")
        if metric in METRICS and part in PARTS and event.get("epoch") is not None:
            found.setdefault(metric, {}).setdefault(part, []).append((event["epoch"], event["value"]))
    ordered = [(metric, found[metric]) for metric in METRICS if metric in found]
    return {metric: {part: thinned(lines[part]) for part in PARTS if part in lines} for metric, lines in ordered}


def thinned(line: Line) -> Line:
    """Every n-th point, the last one always."""
    step = -(-len(line) // POINTS) if line else 1
    kept = line[::step]
    return kept if not line or kept[-1] == line[-1] else [*kept, line[-1]]

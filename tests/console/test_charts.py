"""Curves from metric events: in order, bounded, one line a part."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from strongroom.console.charts import POINTS, curves, thinned


def event(name: str, epoch: int | None, value: float) -> dict[str, Any]:
    return {"name": name, "epoch": epoch, "step": 1, "value": value}


def test_each_metric_has_a_line_for_each_part() -> None:
    events = [event("train/loss", 1, 2.0), event("validation/loss", 1, 2.2), event("validation/accuracy", 1, 0.5)]
    assert curves(events) == {
        "loss": {"train": [(1, 2.0)], "validation": [(1, 2.2)]},
        "accuracy": {"validation": [(1, 0.5)]},
    }


def test_what_is_no_point_of_a_curve_is_left_out() -> None:
    assert curves([event("test/loss", 25, 0.1), event("validation/loss", None, 1.0), event("odd", 1, 1.0)]) == {}


@given(st.lists(st.tuples(st.integers(), st.floats(allow_nan=False)), max_size=2000))
def test_a_line_is_bounded_in_order_and_keeps_its_ends(line: Any) -> None:
    kept = thinned(line)
    assert len(kept) <= POINTS + 1
    assert kept[:1] == line[:1]
    assert kept[-1:] == line[-1:]
    places = iter(line)
    assert all(point in places for point in kept)

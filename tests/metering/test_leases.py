"""Leases of one budget, in any order of what may happen to processes and database: never over-spent, little wasted."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.depth import examples
from tests.metering.world import Processes


def test_no_order_of_events_over_spends_or_loses_what_was_not_used() -> None:
    run_state_machine_as_test(Processes, settings=settings(max_examples=examples(100), stateful_step_count=60))

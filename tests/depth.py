"""How deep the property tests look: twenty times as far in `make proof`; never against the clock."""

from __future__ import annotations

import os

from hypothesis import settings

PROOF = bool(os.environ.get("STRONGROOM_PROOF"))
TIMES = 20 if PROOF else 1

PROFILE = settings(deadline=None, max_examples=100 * TIMES)  # tests/conftest.py loads it


def examples(usual: int) -> int:
    return usual * TIMES

"""How deep the property tests look: twenty times as far in `make proof`; never against the clock."""

from __future__ import annotations

import os

from hypothesis import settings

PROOF = bool(os.environ.get("STRONGROOM_PROOF"))
TIMES = 20 if PROOF else 1

settings.register_profile("ours", deadline=None, max_examples=100 * TIMES)
settings.load_profile("ours")


def examples(usual: int) -> int:
    return usual * TIMES

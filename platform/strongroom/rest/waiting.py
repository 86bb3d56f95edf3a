"""`Prefer: wait=N`, parsed. The wait itself is the edge's, which watches the row that the answer shows."""

from __future__ import annotations

import re

MAX_SECONDS = 60
_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;.*)?", re.IGNORECASE)


def seconds(prefer: str | None) -> int | None:
    """N of a Prefer header, at most 60; None without one. What it does not know it ignores, as RFC 7240 has it."""
    for preference in (prefer or "").split(","):
        if found := _WAIT.fullmatch(preference):
            return min(int(found[1]), MAX_SECONDS)
    return None

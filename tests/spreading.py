"""What runs together when the tests are spread over processes (`-n 2 --dist loadgroup`): a file, or what shares a node.

Takes the place of xdist's own grouping by marks, which pytest 9.2 switched off unnoticed: it writes to `_nodeid`, which
is read no more. Then each process started each node of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

MODES = ("embedded", "production")
# Folders and files with a node in common; the longest prefix counts.
SHARED = {
    "tests/acceptance/rest/": "rest",
    "tests/edge/": "edge",
    "tests/faults/test_broker_down.py": "faults of service",
    "tests/faults/test_cancel.py": "faults of work",
    "tests/faults/test_lost_predictions.py": "faults of service",
    "tests/faults/test_lost_service.py": "faults of service",
    "tests/faults/test_lost_work.py": "faults of work",
}


def unit(nodeid: str) -> str:
    """What a test runs together with: its file's or its folder's others, each mode apart."""
    path, _, name = nodeid.partition("::")
    shared = max((prefix for prefix in SHARED if path.startswith(prefix)), key=len, default=None)
    parameters = name.partition("[")[2].removesuffix("]").split("-")
    mode = next((mode for mode in MODES if mode in parameters), "")
    return f"{SHARED[shared] if shared else path} {mode}"


class Spread(LoadScopeScheduling):
    """Whole units, in the order in which they are collected: the longest stand first."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread | None:
    return Spread(config, log) if config.getvalue("dist") == "loadgroup" else None

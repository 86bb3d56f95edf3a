"""Which code made a model: the version, and the commit where this is a checkout. For the lineage; knows no git
command."""

from __future__ import annotations

import functools
from pathlib import Path

from strongroom import __version__

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def code_version() -> str:
    """`0.1.0+4af0c21`, or `0.1.0` in an installation without its history."""
    commit = _commit(ROOT / ".git")
    return __version__ if commit is None else f"{__version__}+{commit[:7]}"


def _commit(folder: Path) -> str | None:
    try:
        head = (folder / "HEAD").read_text("ascii").strip()
        if not head.startswith("ref: "):
            return head or None
        name = head.removeprefix("ref: ")
        loose = folder / name
        if loose.is_file():
            return loose.read_text("ascii").strip() or None
        packed = (folder / "packed-refs").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)

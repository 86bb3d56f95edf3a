"""The state of a training as bytes and back: what is needed to go on bit for bit, and what tells that this is possible.

Read with `weights_only=True` always, so that a checkpoint is data and never code. Sealing is the channel's business.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """What must be equal for the continuation to be the same run.

    `torch_version` is a plain str: torch.__version__ is an object of its own class, which weights_only refuses to load.
    """

    spec_sha256: str
    torch_version: str
    threads: int

    def difference(self, other: Origin) -> str | None:
        """What differs, in words."""
        for name in ("spec_sha256", "torch_version", "threads"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} {theirs}, here {mine}"
        return None


def pack(state: dict[str, Any], origin: Origin) -> memoryview:
    """The state as bytes, torch's random state included."""
    content = {
        "format": FORMAT,
        "origin": [origin.spec_sha256, origin.torch_version, origin.threads],
        "random": torch.get_rng_state(),
        "state": state,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def unpack(blob: bytes | bytearray | memoryview, origin: Origin) -> tuple[dict[str, Any] | None, str | None]:
    """The state, the random state being set; or None and why this checkpoint cannot be continued here."""
    content = torch.load(io.BytesIO(blob), weights_only=True)
    if content["format"] != FORMAT:
        return None, f"format {content['format']}, here {FORMAT}"
    difference = origin.difference(Origin(*content["origin"]))
    if difference is not None:
        return None, difference
    torch.set_rng_state(content["random"])
    state: dict[str, Any] = content["state"]
    return state, None

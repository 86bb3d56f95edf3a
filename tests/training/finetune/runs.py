"""Fine-tunings in this process, over a tiny base unless another is given, and who watches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.training.finetune.given import Json, data, small_talk, spec
from tests.training.language import making
from training.finetune.tune import Outside, Tuned, tune
from training.loop import Control, Progress


@dataclass
class Witness:
    """Who watches a fine-tuning in a test. `wants` answers control by the count of askings."""

    wants: Callable[[int], Control] = lambda asked: None
    asked: int = 0
    news: list[Progress] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)

    def control(self) -> Control:
        self.asked += 1
        return self.wants(self.asked)

    def outside(self) -> Outside:
        return Outside(
            self.control, self.news.append, self.lines.append, lambda blob, about: self.kept.append(bytes(blob))
        )


def tuned(
    rows: Sequence[Json] | None = None,
    *,
    base: bytes | None = None,
    witness: Witness | None = None,
    resume: bytes | None = None,
    threads: int = 1,
    memory_bytes: int | None = None,
    **changes: Any,
) -> Tuned:
    """A whole fine-tuning in this process."""
    return tune(
        spec(**changes),
        data(small_talk() if rows is None else rows),
        making.sealed(making.model() if base is None else base),
        (witness or Witness()).outside(),
        resume=resume,
        threads=threads,
        memory_bytes=memory_bytes,
    )

"""What walls stand, as a value that travels (job packets, /health/ready). It knows names and no system call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["auto", "require", "off"]


def known_mode(mode: str) -> Mode:
    for known in get_args(Mode):
        if mode == known:
            return known  # type: ignore[no-any-return]  # get_args is typed Any
    raise ValueError(f"sandbox mode {mode!r} is none of auto, require, off")


@dataclass(frozen=True, slots=True)
class Report:
    """`landlock` is the kernel's ABI number, 0 without it; `off` says that nobody tried."""

    landlock: int = 0
    seccomp: bool = False
    namespaces: bool = False
    off: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        walls = {"landlock": self.landlock > 0, "seccomp": self.seccomp, "namespaces": self.namespaces}
        return tuple(name for name, stands in walls.items() if not stands)

    def __str__(self) -> str:
        if self.off:
            return "off"
        names = [f"landlock {self.landlock}"] if self.landlock else []
        names += ["seccomp"] if self.seccomp else []
        names += ["namespaces"] if self.namespaces else []
        return ", ".join(names) or "none"

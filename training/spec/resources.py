"""The spec's sections about the machine that works and the shelf that the result is put on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.spec.data import Name, Section
from training.spec.problems import Planned

MIB = 2**20


class Resources(Section):
    """What a job may use. `threads` is part of the result: other thread counts sum in another order."""

    planned = ("devices", "nodes", "max_cost")

    device: Annotated[Literal["auto", "cpu"], Planned("cuda")] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    memory_bytes: Annotated[int, Field(ge=512 * MIB, le=2**44)] = 4096 * MIB
    max_seconds: Annotated[float, Field(gt=0, le=30 * 86_400)] = 3600.0
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3


class Register(Section):
    """The model that the result becomes a version of (the job's name), and the deployment it is switched into."""

    model: Name | None = None
    stage: Literal["candidate", "production"] = "candidate"
    deploy: Name | None = None

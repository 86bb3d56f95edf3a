"""`manage.py agent`: keeps this node's cells as the deployments say (deployments/agent.py). One per home folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from sandbox import Mode, SandboxError
from strongroom.deployments.agent import Agent, AgentRefused
from strongroom.deployments.cells import CellLost, Conditions

MEMORY_BYTES = 2 << 30
MEMORY_PART = 0.75


class Command(BaseCommand):
    help = "Start, watch and stop the cells that serve this node's deployments."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        environment = settings.ENVIRONMENT
        threads = max(1, environment.number("threads_per_cell"))
        mode = cast(Mode, environment.sandbox)  # one of its three values, or settings would not have loaded
        conditions = Conditions(
            memory_bytes=_memory_bytes(),
            threads=threads,
            language_threads=environment.number("language_threads") or len(os.sched_getaffinity(0)),
            mode=mode,
        )
        parent = Path(environment.runtime).resolve() if environment.runtime else None
        try:
            asyncio.run(_run(Agent(environment.home_path, conditions, parent=parent)))
        except AgentRefused as error:
            raise CommandError(str(error)) from None
        except (SandboxError, CellLost) as error:
            raise CommandError(f"no cell can be started: {error}") from None


async def _run(agent: Agent) -> None:
    agent.prepare()
    await agent.run()


def _memory_bytes() -> int:
    """What one cell may take: a ceiling against runaway models, not a share."""
    return max(MEMORY_BYTES, int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_PART))

"""The askers' side of a cell's socket: one connection per cell, many requests in flight on it, answers in any order.

    engines = Engines(home)
    answer = await engines.infer(tenant, "digits", version_id, inputs={"image": array}, deadline_ms=30_000)

A lost cell answers every waiter at once with EngineLost; a silent one is given up at each request's own deadline; a
deployment that is not loaded is asked for and waited for within the deadline. Nothing hangs. What travels on one
connection is connection.py's. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from uuid import UUID

from inference.language.requests import Generate
from inference.protocol import Array, Buffer
from inference.signature import InputRefused
from strongroom.deployments.answers import Embedded
from strongroom.deployments.connection import CellConnection
from strongroom.deployments.replies import Answer, EngineLost, Reply
from strongroom.deployments.targets import Target, Targets
from strongroom.errors import FieldError, Invalid, Unavailable

__all__ = ["Answer", "CellConnection", "Embedded", "EngineLost", "Engines", "Reply", "refused"]

POLL_SECONDS = 0.02
CONNECT_SECONDS = 2.0


class Engines:
    """All cells of this node, by what they serve. One per web process (or job), on its event loop."""

    def __init__(self, home: Path) -> None:
        self.targets = Targets(home)
        self._connections: dict[Path, CellConnection] = {}
        self._opening: dict[Path, asyncio.Task[CellConnection]] = {}

    async def infer(
        self,
        tenant: UUID | str,
        deployment: str,
        version: UUID | str,
        inputs: Mapping[str, Array] | None = None,
        *,
        raw: Buffer | None = None,
        content_type: str | None = None,
        outputs: Sequence[str] | None = None,
        deadline_ms: int = 30_000,
        priority: int = 0,
        principal: int = 0,
    ) -> Answer:
        """One prediction. Invalid, Unsupported, LimitReached queue_full, Unavailable (model_loading, engine_lost,
        deadline_exceeded)."""
        tenant, version = str(tenant), str(version)
        connection, left_ms = await self._at_hand(tenant, deployment, version, deadline_ms)
        return await connection.infer(
            deployment,
            version,
            inputs,
            raw=raw,
            content_type=content_type,
            outputs=outputs,
            deadline_ms=left_ms,
            priority=priority,
            principal=principal,
        )

    async def generate(
        self,
        tenant: str,
        deployment: str,
        version: str,
        generate: Generate,
        *,
        stream: bool,
        scope: str = "",
        deadline_ms: int,
        principal: int = 0,
    ) -> Reply:
        """What a language model says; as `infer` where it cannot be asked."""
        connection, left_ms = await self._at_hand(tenant, deployment, version, deadline_ms)
        return connection.generate(
            deployment,
            version,
            generate,
            stream=stream,
            scope=scope,
            deadline_ms=left_ms,
            principal=principal,
        )

    async def embed(
        self, tenant: str, deployment: str, version: str, texts: Sequence[str], *, deadline_ms: int, principal: int = 0
    ) -> Embedded:
        """A vector for each text."""
        connection, left_ms = await self._at_hand(tenant, deployment, version, deadline_ms)
        return await connection.embed(deployment, version, texts, deadline_ms=left_ms, principal=principal)

    async def count(
        self, tenant: str, deployment: str, version: str, generate: Generate, *, deadline_ms: int, principal: int = 0
    ) -> int:
        """How many tokens the prompt has."""
        connection, left_ms = await self._at_hand(tenant, deployment, version, deadline_ms)
        return await connection.count(deployment, version, generate, deadline_ms=left_ms, principal=principal)

    async def _at_hand(
        self, tenant: str, deployment: str, version: str, deadline_ms: int
    ) -> tuple[CellConnection, int]:
        """A connection that has it loaded, and what is left of the deadline."""
        connection = self.ready(tenant, deployment, version)
        if connection is not None:
            return connection, deadline_ms
        started = monotonic()
        connection = await self.connection(tenant, deployment, version, deadline_ms=deadline_ms)
        return connection, max(1, deadline_ms - int((monotonic() - started) * 1000))

    def is_ready(self, tenant: UUID | str, deployment: str, version: UUID | str) -> bool:
        """Whether a cell has it loaded, for /v2's ready."""
        return self.targets.find(str(tenant), deployment, str(version)) is not None

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def ready(self, tenant: str, deployment: str, version: str) -> CellConnection | None:
        """The connection when everything is as it was: the hot path, without a wait."""
        target = self.targets.find(tenant, deployment, version)
        if target is None:
            return None
        connection = self._connections.get(target.socket)
        return None if connection is None or connection.lost else connection

    async def connection(self, tenant: str, deployment: str, version: str, *, deadline_ms: int) -> CellConnection:
        """Waits until a cell has it loaded and takes connections; model_loading when the deadline comes first."""
        deadline = monotonic() + deadline_ms / 1000
        while True:
            target = self.targets.find(tenant, deployment, version, now=True)
            if target is not None:
                with contextlib.suppress(OSError, EngineLost):  # the agent has not noticed yet that this cell is gone
                    async with asyncio.timeout(deadline - monotonic()):
                        return await self._connected(target)
            elif self.targets.has_failed(tenant, deployment, version):
                raise Unavailable(f"the model of '{deployment}' could not be loaded", retry_after_seconds=5)
            else:
                self.targets.ask(tenant, deployment)
            if monotonic() + POLL_SECONDS > deadline:
                raise Unavailable(f"the model of '{deployment}' is being loaded")
            await asyncio.sleep(POLL_SECONDS)

    async def _connected(self, target: Target) -> CellConnection:
        """One attempt for all who wait for the same cell."""
        connection = self._connections.get(target.socket)
        if connection is not None and not connection.lost:
            return connection
        opening = self._opening.get(target.socket)
        if opening is None:
            opening = asyncio.create_task(self._open(target.socket))
            self._opening[target.socket] = opening
            opening.add_done_callback(lambda _: self._opening.pop(target.socket, None))
        return await asyncio.shield(opening)

    async def _open(self, path: Path) -> CellConnection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_unix_connection(lambda: CellConnection(loop), str(path))
            try:
                await connection.prove()
            except BaseException:
                connection.close()
                raise
        live = {target.socket for target in self.targets.snapshot.cells}
        for old in [one for one, other in self._connections.items() if other.lost or one not in live]:
            if old != path:
                self._connections.pop(old).close()
        self._connections[path] = connection
        return connection


def refused(refusal: InputRefused) -> Invalid:
    """What Signature.check or .arrays refused in this process, as the platform's error."""
    errors = [FieldError(problem.path, problem.code, problem.message, problem.hint) for problem in refusal.problems]
    return Invalid(refusal.message, title="The input does not fit the model", errors=errors)

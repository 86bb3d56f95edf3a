"""The node's cells, asked from threads: one event loop in a thread of its own holds the connections and counts the
uses.

The same engine, output policy and counters as the front door's; there is no second way to compute. Knows no jobs.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings

from inference.answer import Prediction, predictions
from inference.protocol import ROWS, Array
from inference.signature import Signature
from strongroom.deployments import services as deployments
from strongroom.deployments.client import Engines
from strongroom.errors import NotFound
from strongroom.metering.services import Meter

T = TypeVar("T")
Inputs = Mapping[str, Array] | bytes  # tensors, or rows as JSON, which the cell decodes


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment with its live version, as one prediction job uses it from its begin to its end."""

    tenant_id: UUID
    deployment_id: UUID
    deployment: str
    model: str
    version: int
    version_id: UUID
    signature: Signature
    policy: dict[str, Any]


def served(tenant_id: UUID, name: str) -> Served:
    """In the tenant's scope; NotFound."""
    row = deployments.resolve(name)
    traffic = row.traffic.select_related("version__model").filter(mode="live").first()
    if traffic is None:
        raise NotFound(f"the deployment {name!r} serves no version")
    return Served(
        tenant_id=tenant_id,
        deployment_id=row.id,
        deployment=row.name,
        model=traffic.version.model.name,
        version=traffic.version.number,
        version_id=traffic.version_id,
        signature=Signature.from_json(traffic.version.signature),
        policy=deployments.POLICY | row.output_policy,
    )


class Cells:
    """`ask` from any thread; everything else happens on the loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._meter = Meter()
        self._engines = Engines(settings.ENVIRONMENT.home_path)
        threading.Thread(target=self._loop.run_forever, name="cells", daemon=True).start()

    def ask(self, of: Served, inputs: Inputs, *, principal_id: UUID, deadline_ms: int) -> Future[list[Prediction]]:
        """Predictions under the deployment's policy, or one of the platform's errors, inside the deadline."""
        return self._run(self._ask(of, inputs, principal_id, deadline_ms))

    def flush(self) -> None:
        """Adds what was counted so far to the table; in the calling thread, outside any scope."""
        if self._run(self._cut()).result():
            self._meter.send()

    async def _ask(self, of: Served, inputs: Inputs, principal_id: UUID, deadline_ms: int) -> list[Prediction]:
        given: dict[str, Any] = {"inputs": inputs}
        if isinstance(inputs, bytes):
            given = {"raw": inputs, "content_type": ROWS}
        try:
            answer = await self._engines.infer(
                of.tenant_id,
                of.deployment,
                of.version_id,
                deadline_ms=deadline_ms,
                principal=principal_id.int >> 1 & 0x7FFF_FFFF,
                **given,
            )
        except BaseException:
            self._meter.count(of.tenant_id, of.deployment_id, of.version_id, principal_id, failed=True)
            raise
        found = predictions(of.signature, answer.outputs, of.policy)
        self._meter.count(
            of.tenant_id,
            of.deployment_id,
            of.version_id,
            principal_id,
            items=len(found),
            compute_us=answer.compute_us,
            queue_us=answer.queue_us,
        )
        return found

    async def _cut(self) -> bool:
        return self._meter.cut()

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


@functools.cache
def cells() -> Cells:
    """This process's."""
    return Cells()

"""The node's cells, asked from threads: one event loop in a thread of its own holds the connections, counts the uses
and reserves from budgets.

The same engine, output policy and counters as the front door's; there is no second way to compute. Knows no jobs.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import close_old_connections

from inference.answer import Prediction, predictions
from inference.protocol import ROWS, Array
from strongroom.deployments.client import Engines
from strongroom.deployments.served import Served, load
from strongroom.deployments.speech import Speaker
from strongroom.errors import NotFound
from strongroom.metering.leases import Leases
from strongroom.metering.limits import Limits
from strongroom.metering.services import Meter

T = TypeVar("T")
Inputs = Mapping[str, Array] | bytes  # tensors, or rows as JSON, which the cell decodes


def served(tenant_id: UUID, name: str) -> Served:
    """A deployment as one job uses it from its begin to its end. NotFound."""
    if (found := load(tenant_id, name)) is None:
        raise NotFound(f"there is no deployment {name!r}")
    return found


class Cells:
    """`ask`, `start` and `flush` from any thread, outside any scope; everything else happens on the loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        leases = Leases()
        self.meter = Meter(leases)
        self.engines = Engines(settings.ENVIRONMENT.home_path)
        self.speaker = Speaker(self.engines, Limits(), leases, _in_thread)
        threading.Thread(target=self._loop.run_forever, name="cells", daemon=True).start()

    def ask(self, of: Served, inputs: Inputs, *, principal_id: UUID, deadline_ms: int) -> Future[list[Prediction]]:
        """Predictions under the deployment's policy, or one of the platform's errors, inside the deadline."""
        return self.start(self._ask(of, inputs, principal_id, deadline_ms))

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs it on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def flush(self) -> bool:
        """Adds what was counted so far to the table; in the calling thread. Whether there was anything to tell."""
        has_news = self.start(self._cut()).result()
        if has_news:
            self.meter.send()
        return has_news

    async def _ask(self, of: Served, inputs: Inputs, principal_id: UUID, deadline_ms: int) -> list[Prediction]:
        given: dict[str, Any] = {"inputs": inputs}
        if isinstance(inputs, bytes):
            given = {"raw": inputs, "content_type": ROWS}
        use = (of.tenant, of.deployment, of.engine_version, str(principal_id))
        try:
            answer = await self.engines.infer(
                of.tenant,
                of.name,
                of.engine_version,
                deadline_ms=deadline_ms,
                principal=principal_id.int >> 1 & 0x7FFF_FFFF,
                **given,
            )
        except BaseException:
            self.meter.count(*use, failed=True)
            raise
        found = predictions(of.signature, answer.outputs, of.policy)
        self.meter.count(*use, items=len(found), compute_us=answer.compute_us, queue_us=answer.queue_us)
        return found

    async def _cut(self) -> bool:
        return self.meter.cut()


async def _in_thread(call: Callable[..., T], *args: Any) -> T:
    return await asyncio.to_thread(_fresh, call, args)


def _fresh(call: Callable[..., T], args: tuple[Any, ...]) -> T:
    close_old_connections()
    try:
        return call(*args)
    finally:
        close_old_connections()


@functools.cache
def cells() -> Cells:
    """This process's."""
    return Cells()

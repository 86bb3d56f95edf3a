"""A line of a batch, asked of the node's cells as the front door asks: the same exchange, counters and budgets.

What passes by itself (a full queue, a model that is being loaded, a budget that others hold just now) is waited for;
the rest is the line's answer, with the status that the front door would have given. Runs on the loop of cells.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

from strongroom.access.services import Principal
from strongroom.deployments.served import Served
from strongroom.deployments.speech import farewell
from strongroom.errors import Invalid, StrongroomError
from strongroom.jobs.cells import Cells
from strongroom.metering.services import Meter
from strongroom.openai import answers, errors, requests
from strongroom.openai.embeddings import EmbeddingsRequest
from strongroom.openai.exchanges import EXCHANGES, told_by
from strongroom.rest.problem import from_exception, log_failure

EMBEDDINGS = "/v1/embeddings"
PASSES = frozenset(
    {
        *("queue_full", "limit_reached", "concurrency_limited", "rate_limited"),
        *("model_loading", "engine_lost", "database_unavailable", "keys_unavailable"),
    }
)
PATIENCE_SECONDS = 300.0
READY_MS = 2000
PAUSE_SECONDS = 0.5
WAIT_SECONDS = 0.1
MOST_LOSSES = 3  # of the engine, for one line


@dataclass(frozen=True, slots=True)
class Answer:
    """What the front door would have answered."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Use:
    """A Call of deployments/speech.py. Nothing to leave: how many are asked at once, who asks decides."""

    principal: Principal
    served: Served
    deadline: float  # of monotonic()
    meter: Meter

    @property
    def left_ms(self) -> int:
        return max(1, int((self.deadline - monotonic()) * 1000))

    def leave(self) -> None:
        return None

    def count(self, **counts: Any) -> None:
        served = self.served
        self.meter.count(served.tenant, served.deployment, served.engine_version, self.principal.text, **counts)


class Asker:
    """Asks for one batch. `ask`, `end` and the attributes are for the slot's thread, the rest for the loop.

    `refused`: an answer to all that is asked from now on, in place of the model's.
    """

    def __init__(self, cells: Cells, endpoint: str, principal: Principal, served: Served) -> None:
        self._cells, self._endpoint = cells, endpoint
        self.principal, self.served = principal, served
        self.refused: StrongroomError | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_patient = True  # until a line waited in vain; then none does, until one is answered

    def ask(self, body: dict[str, Any]) -> Future[Answer]:
        return self._cells.start(self._answered(body))

    def end(self, meanwhile: Callable[[], object]) -> None:
        """Stops what is asked; returns once what it made by then is counted. `meanwhile` is called until then."""
        ending = self._cells.start(self._end())
        while not wait([ending], WAIT_SECONDS).done:
            meanwhile()

    async def _answered(self, body: dict[str, Any]) -> Answer:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return Answer(200, await self._patiently(body))
        except StrongroomError as error:
            return refusal(error)
        except Exception as error:  # a defect of ours is one line's answer, not the batch's end
            log_failure(error)
            return refusal(from_exception(error))

    async def _patiently(self, body: dict[str, Any]) -> bytes:
        ends, losses = monotonic() + PATIENCE_SECONDS, 0
        while True:
            if self.refused is not None:
                raise self.refused.with_traceback(None)  # else it keeps each line that it refused
            try:
                written = await self._once(body)
            except StrongroomError as error:
                losses += error.code == "engine_lost"
                if error.code not in PASSES or losses >= MOST_LOSSES:
                    raise
                if self._is_patient and monotonic() < ends:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                self._is_patient = False
                raise
            self._is_patient = True
            return written

    async def _once(self, body: dict[str, Any]) -> bytes:
        served = self.served
        engines, name = self._cells.engines, served.place
        if engines.ready(*name) is None:  # in short looks, since it may be another version's turn meanwhile
            await engines.connection(*name, deadline_ms=READY_MS)
        use = Use(self.principal, served, monotonic() + served.deadline_ms / 1000, self._cells.meter)
        return await (self._encoded(use, body) if self._endpoint == EMBEDDINGS else self._spoken(use, body))

    async def _spoken(self, use: Use, body: dict[str, Any]) -> bytes:
        exchange = EXCHANGES[self._endpoint](body)
        if exchange.asked.stream:
            raise Invalid.field("/stream", "must be false or left out: a batch has whole answers", code="invalid_value")
        scope = exchange.asked.prompt_cache_key or ""
        with told_by(exchange):
            speech = await self._cells.speaker.speak(use, exchange.generates, stream=False, scope=scope)
            try:
                said = await speech.whole()
            finally:
                speech.close()
        return orjson.dumps(exchange.answer(said, speech.ends))

    async def _encoded(self, use: Use, body: dict[str, Any]) -> bytes:
        asked = requests.read(EmbeddingsRequest, body)
        found = await self._cells.speaker.embed(use, asked.texts)
        asked.check_width(found.vectors.shape[1])
        return answers.embeddings(asked.model, found.vectors, asked.encoding_format, sum(found.tokens))

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await farewell()


def refusal(error: StrongroomError) -> Answer:
    return Answer(errors.status(error), orjson.dumps(errors.document(error)))

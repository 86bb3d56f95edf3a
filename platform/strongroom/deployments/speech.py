"""A use of a language model that was let in: asked, heard as it comes, counted at its end from what the cell says.

    speech = await Speaker(engines, limits, leases, run).speak(call, read, stream=False)
    async for parts in speech: …
    speech.close()

Whoever stops listening before the end closes: the cell is told, the usage of what was made by then is still counted,
and the call is left once the cell is free. Where the key or its tenant has a budget, what the answer may cost at most
is set aside before, and what it did not cost is free again after: prompt and answer count alike, what was found in the
cache too. Who lets a call in, and what leaving one means, is the caller's: the front door (edge/core.py) and the
batches (jobs/asking.py). Knows no HTTP and no documents of a face. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inference.language.requests import Done, Generate, Tokens
from strongroom.access.services import Principal
from strongroom.deployments.answers import Unheard
from strongroom.deployments.client import Embedded, EngineLost, Engines, Reply
from strongroom.deployments.replies import LAST_WORDS_SECONDS
from strongroom.deployments.served import Served
from strongroom.errors import StrongroomError, Unavailable
from strongroom.metering.budgets import Limit
from strongroom.metering.leases import Leases, Reservation
from strongroom.metering.limits import Limits

Part = Tokens | Done
Run = Callable[..., Awaitable[Any]]  # has a blocking call done in a thread

FAILURES = frozenset({"deadline", "error"})  # of a choice's end
MARKS = 2  # that an encoder puts around a text
FAREWELL_SECONDS = 5.0  # less than a supervisor waits for a process that it stops

_leaving: set[asyncio.Task[Any]] = set()


async def farewell() -> None:
    """Returns once all that was closed on this loop by now is counted, or after some seconds: a process that is to end
    then ends, and its leases are paid in full."""
    if leaving := set(_leaving):
        await asyncio.wait(leaving, timeout=FAREWELL_SECONDS)


class Call(Protocol):
    """A use of a deployment that was let in."""

    @property
    def principal(self) -> Principal: ...

    @property
    def served(self) -> Served: ...

    @property
    def left_ms(self) -> int:
        """Of the deadline, at least 1."""

    def leave(self) -> None: ...

    def count(self, **counts: Any) -> None:
        """Into the usage of this deployment, version and principal."""


class Speech:
    """What the model says to one request of one or more prompts: `async for parts in speech`, and `close`.

    Choice j of prompt i has the index i * n + j. Belongs to one task.
    """

    def __init__(self, call: Call, replies: Sequence[Reply], n: int, reserved: Reservation | None = None) -> None:
        self._call, self._replies, self._n, self._reserved = call, replies, n, reserved
        self._ends: list[Done] = []
        self._hearing: list[asyncio.Task[None]] = []
        self._closed = self._failed = False

    @property
    def call(self) -> Call:
        return self._call

    @property
    def ends(self) -> list[Done]:
        """Of the choices that have ended: their usage."""
        return self._ends

    async def __aiter__(self) -> AsyncIterator[list[Part]]:
        """StrongroomError where the model fails or the deadline passes."""
        try:
            if len(self._replies) == 1:
                async for parts in self._replies[0]:
                    if told := self._taken(parts, 0):
                        yield told
            else:
                async for parts in self._together():
                    yield parts
        except StrongroomError:
            self._failed = True  # whatever its end says that comes after
            raise
        for end in self._ends:
            if end.reason == "deadline":
                raise Unavailable("the deadline passed before the answer was whole", code="deadline_exceeded")
            if end.reason == "error":
                raise EngineLost("the engine failed while it answered")

    async def whole(self) -> dict[int, list[Tokens]]:
        """Every choice to its end."""
        said: dict[int, list[Tokens]] = {}
        async for parts in self:
            for part in parts:
                if isinstance(part, Tokens):
                    said.setdefault(part.index, []).append(part)
        return said

    def close(self) -> None:
        """Nobody hears it any more, whether it has ended or not."""
        if self._closed:
            return
        self._closed = True
        task = asyncio.create_task(self._leave(), name="end of a reply")
        _leaving.add(task)
        task.add_done_callback(_leaving.discard)

    async def _leave(self) -> None:
        is_known = False  # what it cost
        try:
            for reply in self._replies:
                reply.cancel()
            await self._stop_hearing()
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                is_known = all([await self._last_words(reply) for reply in self._replies])
        except TimeoutError:
            pass
        finally:
            self._call.leave()
            self._count()
            if self._reserved is not None:
                used = sum([end.prompt_tokens + end.completion_tokens for end in self._ends])
                self._reserved.settle(used if is_known else None)

    async def _last_words(self, reply: Reply) -> bool:
        """To the end; False where the cell computed and cannot say how much."""
        try:
            async for parts in reply:
                self._taken(parts, 0)
        except StrongroomError as error:
            return not is_untold(error)
        return True

    def _count(self) -> None:
        ends = self._ends
        self._call.count(
            items=len(ends),
            failed=self._failed or not ends or any(end.reason in FAILURES for end in ends),
            queue_us=int(1000 * max((end.queue_ms for end in ends), default=0)),
            compute_us=int(1000 * sum(end.prefill_ms + end.decode_ms for end in ends)),
            tokens_in=sum([end.prompt_tokens for end in ends]),
            tokens_cached=sum([end.cached_tokens for end in ends]),
            tokens_out=sum([end.completion_tokens for end in ends]),
            tokens_cancelled=sum([end.completion_tokens for end in ends if end.reason == "cancelled"]),
        )

    def _taken(self, parts: list[Part], offset: int) -> list[Part]:
        """What of it is told: not the end of a choice that failed, which is raised once all have ended."""
        told = []
        for part in parts:
            if offset:
                part = _moved(part, offset)
            if isinstance(part, Done):
                self._ends.append(part)
                if part.reason in FAILURES:
                    continue
            told.append(part)
        return told

    async def _together(self) -> AsyncIterator[list[Part]]:
        """Several replies as one, each as it comes."""
        # Bounded: who does not read holds up the cell's sequences, as with one reply.
        heard: asyncio.Queue[list[Part] | StrongroomError | None] = asyncio.Queue(len(self._replies))

        async def hear(reply: Reply, offset: int) -> None:
            try:
                async for parts in reply:
                    if told := self._taken(parts, offset):
                        await heard.put(told)
                await heard.put(None)
            except StrongroomError as error:
                await heard.put(error)

        self._hearing = [asyncio.create_task(hear(reply, place * self._n)) for place, reply in enumerate(self._replies)]
        try:
            left = len(self._hearing)
            while left:
                parts = await heard.get()
                if isinstance(parts, StrongroomError):
                    raise parts
                if parts is None:
                    left -= 1
                else:
                    yield parts
        finally:
            await self._stop_hearing()

    async def _stop_hearing(self) -> None:
        """One task hears a reply: whoever stopped listening may have left a generator that is not closed yet."""
        for task in self._hearing:
            task.cancel()
        await asyncio.gather(*self._hearing, return_exceptions=True)


def is_untold(error: StrongroomError) -> bool:
    """Whether the cell may have computed and did not say how much; its own refusals come before any work."""
    return isinstance(error, EngineLost | Unheard)


def _moved(part: Part, offset: int) -> Part:
    fields = {name: getattr(part, name) for name in part.__slots__}
    return type(part)(**(fields | {"index": part.index + offset}))


@dataclass(frozen=True, slots=True)
class Speaker:
    """What a process asks with: its connections to the cells, the budgets that it knows, its leases of them."""

    engines: Engines
    limits: Limits
    leases: Leases
    run: Run

    async def speak(
        self, call: Call, read: Callable[[Served], Sequence[Generate]], *, stream: bool, scope: str = ""
    ) -> Speech:
        """`read` says what is asked once it is known of what; what it raises, it raises. `close` follows.

        `scope` parts the principal's own prefix cache; never one principal's from another's.
        """
        replies: list[Reply] = []
        reserved: Reservation | None = None
        try:
            served, principal = call.served, call.principal
            served.check_speaks()
            asked = read(served)
            reserved = await self._reserved(call, asked)
            for generate in asked:
                reply = await self.engines.generate(
                    *served.place,
                    generate,
                    stream=stream,
                    scope=f"{principal.text}/{scope}",
                    deadline_ms=call.left_ms,
                    principal=principal.lane,
                )
                replies.append(reply)
        except BaseException:
            if replies:  # those before the one that failed are at work
                Speech(call, replies, asked[0].n, reserved).close()
                raise
            if reserved is not None:
                reserved.settle(0)
            call.count(failed=True)
            call.leave()
            raise
        return Speech(call, replies, asked[0].n, reserved)

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        """The texts' vectors, from a text encoder; left, counted and paid for when it returns. Whoever stops waiting
        pays, too: the encoder computes all the same."""
        task = asyncio.create_task(self._embedded(call, texts), name="an embedding")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            _leaving.add(task)
            task.add_done_callback(_leaving.discard)
            raise

    async def _embedded(self, call: Call, texts: Sequence[str]) -> Embedded:
        served, reserved = call.served, None
        used: int | None = 0
        try:
            if limits := await self._limits(call.principal):
                most = sum([len(text.encode()) + MARKS for text in texts])  # no token has less than a byte
                reserved = await self.leases.reserve(limits, most, self.run)
            lane = call.principal.lane
            found = await self.engines.embed(*served.place, texts, deadline_ms=call.left_ms, principal=lane)
            used = sum(found.tokens)
        except StrongroomError as error:
            if reserved is not None and is_untold(error):
                used = None
            call.count(failed=True)
            raise
        except BaseException:
            call.count(failed=True)
            raise
        finally:
            call.leave()
            if reserved is not None:
                reserved.settle(used)
        call.count(items=len(texts), tokens_in=used)
        decimals = (served.policy or {}).get("decimals")
        return found if decimals is None else found._replace(vectors=found.vectors.round(decimals))

    async def _limits(self, principal: Principal) -> Sequence[Limit]:
        """The budgets that apply, usually none."""
        limits = self.limits.peek(principal)
        return await self.limits.find(principal, self.run) if limits is None else limits

    async def _reserved(self, call: Call, asked: Sequence[Generate]) -> Reservation | None:
        """What the answers may cost at most, set aside in each budget that applies; None where none does."""
        if not (limits := await self._limits(call.principal)):
            return None
        served, lane, tokens = call.served, call.principal.lane, 0
        for generate in asked:
            prompt = await self.engines.count(*served.place, generate, deadline_ms=call.left_ms, principal=lane)
            left, wanted = max(0, served.language.context_length - prompt), generate.sampling.max_tokens
            tokens += prompt + generate.n * (left if wanted is None else min(wanted, left))
        return await self.leases.reserve(limits, tokens, self.run)

"""Keeps one tenant's cell on one device as it should be: started, restarted with growing pauses, loaded, unloaded.

    assign(wanted) ─→ turn: cell there? ─→ load what is missing ─→ tell ─→ unload what nobody wants any more
          ↑                    │ ended: again after a pause                 (a replaced version goes last, and nobody
          └── cell's end ──────┘                                             waits for its answers but the cell)

A version whose loading killed the cell twice is given up until its deployment changes: it would take the tenant's
other models down with it. Knows no database: orders come from a function, what became of them goes to another.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from uuid import UUID

from sealing import SealingError
from strongroom.deployments.cells import Cell, CellLost, LoadRefused, Zygote
from strongroom.deployments.rows import Order, Report, Wanted
from strongroom.deployments.shared import GIVER_LOST
from strongroom.errors import StrongroomError
from strongroom.vault.services import ColumnCorrupt

PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_SECONDS = 60.0  # a cell that lived so long starts anew without a pause
SERVED_STARTS = 3  # one that came as far as serving waits for PAUSES[3] at most: a caller may have killed it
DRAIN_SECONDS = 0.5  # from cells.json without a version to its unloading; the edge looks every 0.05 s
DEATHS_ALLOWED = 2
LOOK_SECONDS = 5.0
HANGING_SECONDS = 20.0
PASSING = frozenset({"keys_unavailable", "database_unavailable", "storage_full", GIVER_LOST})
CHANGING = frozenset({"not_found"})  # a withdrawn model may be published again: tried at every change of the rows

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Failure:
    """Why a version is not loaded, and when it is tried again."""

    code: str
    wanted: Wanted
    times: int = 1
    again_at: float = 0.0

    @property
    def passing(self) -> bool:
        """Tried again with growing pauses, and told as `loading`."""
        return self.code in PASSING


@dataclass(slots=True)
class Ties:
    """What a keeper gets from the agent."""

    zygote: Zygote
    folder: Path
    order: Callable[[Wanted], Awaitable[Order]]
    share: Callable[[Order], Awaitable[None]]
    report: Callable[[Report], None]
    publish: Callable[[], None]
    names: Callable[[], str]


class Keeper:
    """One task on the agent's loop: `run`. The rest of its methods may be called from the loop at any time."""

    def __init__(self, tenant: UUID, device: str, ties: Ties) -> None:
        self.tenant, self.device = tenant, device
        self.cell: Cell | None = None
        self.state = "starting"
        self.loaded: dict[tuple[str, str], Wanted] = {}
        self.failures: dict[tuple[str, str], Failure] = {}
        self._deaths_while_loading: dict[tuple[str, str], int] = {}
        self._maps: dict[tuple[str, str], frozenset[UUID]] = {}  # shared copies, by artefact
        self._freeing: dict[asyncio.Task[None], tuple[str, str]] = {}
        self._told: dict[UUID, str] = {}  # the state of each deployment, as last told
        self._wanted: dict[tuple[str, str], Wanted] = {}
        self._ties = ties
        self._changed = asyncio.Event()
        self._starts = 0
        self._started_at = 0.0
        self._memory_bytes: int | None = None

    def assign(self, wanted: Iterable[Wanted], loading: Collection[UUID] = ()) -> None:
        """What should be loaded from now on. `loading`: the deployments whose rows say so, which is what somebody wants
        to hear the end of: what failed is tried again, what is there is told."""
        self._wanted = {(one.name, str(one.version)): one for one in wanted}
        for key, failure in list(self.failures.items()):
            again = failure.code in CHANGING or (not failure.passing and failure.wanted.deployment in loading)
            if again or self._wanted.get(key) != failure.wanted:
                del self.failures[key]
                self._deaths_while_loading.pop(key, None)
        self._forget_maps()
        for key, one in self._wanted.items():
            unheard = one.deployment in loading or self._told.get(one.deployment) != "ready"
            if unheard and self.loaded.get(key) == one:
                self._tell(one, "ready")
        self._changed.set()

    def hurry(self) -> None:
        """Somebody waits: what failed for a passing reason is tried now."""
        for failure in self.failures.values():
            if failure.passing:
                failure.again_at = 0.0
        self._changed.set()

    def serves(self, name: str) -> bool:
        return any(key[0] == name for key in self.loaded)

    @property
    def maps(self) -> set[UUID]:
        """The artefacts whose shared copies are mapped here, or about to be."""
        return {artefact for artefacts in self._maps.values() for artefact in artefacts}

    async def run(self) -> None:
        """Until nothing is wanted here any more, and what was taken in is answered."""
        try:
            await self._keep()
        finally:
            for task in self._freeing:
                task.cancel()

    async def _keep(self) -> None:
        while self._wanted or (self._lives and (self.loaded or self._freeing)):
            self._changed.clear()
            try:
                await self._turn()
            except CellLost as error:
                logger.warning("cell of tenant %s: %s", self.tenant, error)
                if self.cell is not None:
                    self.cell.end()
                self._changed.set()
            except Exception:  # a defect: told, and tried again after a pause, since other tenants need this agent
                logger.exception("keeping the cell of tenant %s failed", self.tenant)
                await asyncio.sleep(1.0)
            await self._wait()
        await self._stop()

    async def _stop(self) -> None:
        if self.cell is not None and self._lives:
            self.cell.on_end = lambda: None
            self.cell.end()
        self.state = "dead"
        self._ties.publish()

    @property
    def _lives(self) -> bool:
        return self.cell is not None and not self.cell.ended.is_set()

    async def _turn(self) -> None:
        if not self._wanted and self.cell is not None:
            self.state = "draining"
            await self._unload(self.cell)
            return
        cell = await self._living_cell()
        for key, wanted in list(self._wanted.items()):
            if self.loaded.get(key) != wanted and self._due(key):
                await self._load(cell, key, wanted)
            if self._changed.is_set():
                return
        await self._unload(cell)

    async def _living_cell(self) -> Cell:
        if self.cell is not None and self._lives:
            return self.cell
        if monotonic() - self._started_at > STEADY_SECONDS:
            self._starts = 0
        await asyncio.sleep(PAUSES[min(self._starts, len(PAUSES) - 1)])
        self._starts += 1
        self._started_at = monotonic()
        self.state = "starting"
        cell = await Cell.start(self._ties.zygote, self.tenant, self.device, self._ties.folder / self._ties.names())
        cell.on_end = self._ended
        self.cell = cell
        logger.info("cell of tenant %s started, pid %d", self.tenant, cell.pid)
        return cell

    def _ended(self) -> None:
        """Called once by the cell, whatever ended it."""
        self.state = "dead"
        for wanted in self.loaded.values():
            self._tell(wanted, "loading")
        self.loaded.clear()
        self._forget_maps()
        self._ties.publish()
        self._changed.set()

    def _due(self, key: tuple[str, str]) -> bool:
        failure = self.failures.get(key)
        return failure is None or failure.again_at <= monotonic()

    async def _load(self, cell: Cell, key: tuple[str, str], wanted: Wanted) -> None:
        try:
            order = await self._ties.order(wanted)
        except StrongroomError as error:
            self._failed(key, wanted, error.code)
            return
        except (SealingError, ColumnCorrupt):
            self._failed(key, wanted, "artefact_corrupt")
            return
        parts = [part for part in (order, order.base) if part is not None and part.is_public and wanted.share]
        self._maps[key] = frozenset(part.artefact for part in parts)
        try:
            for part in parts:
                await self._ties.share(part)
            memory_bytes = await cell.load(wanted, order)
        except LoadRefused as refusal:
            logger.warning("deployment %s of tenant %s: %s", wanted.name, self.tenant, refusal)
            failed = self.failures.get(key)
            many = failed is not None and failed.code == GIVER_LOST and failed.times >= DEATHS_ALLOWED
            self._failed(key, wanted, "load_killed" if many and refusal.code == GIVER_LOST else refusal.code)
        except CellLost:
            deaths = self._deaths_while_loading[key] = self._deaths_while_loading.get(key, 0) + 1
            if deaths >= DEATHS_ALLOWED:
                self._failed(key, wanted, "load_killed")
            raise
        else:
            self._succeeded(key, wanted, memory_bytes)
        finally:
            order.forget()

    def _succeeded(self, key: tuple[str, str], wanted: Wanted, memory_bytes: int | None) -> None:
        self.failures.pop(key, None)
        self._deaths_while_loading.pop(key, None)
        self._starts = min(self._starts, SERVED_STARTS)
        self._memory_bytes = memory_bytes
        self.loaded.pop(key, None)  # the newest stands last
        self.loaded[key] = wanted
        self.state = "ready"
        self._ties.publish()
        self._tell(wanted, "ready")

    def _failed(self, key: tuple[str, str], wanted: Wanted, code: str) -> None:
        if self._wanted.get(key) != wanted:
            return  # nobody wants it any more: it is no failure of the deployment's
        times = self.failures[key].times + 1 if key in self.failures else 1
        failure = self.failures[key] = Failure(code, wanted, times)
        if not failure.passing and key not in self.loaded:
            self._maps.pop(key, None)
        failure.again_at = monotonic() + (PAUSES[min(times + 1, len(PAUSES) - 1)] if failure.passing else math.inf)
        self._ties.publish()
        self._tell(wanted, *(("loading", None) if failure.passing else ("failed", code)))

    async def _unload(self, cell: Cell) -> None:
        """What nobody wants any more; a version that another one replaces stays until that one is loaded.

        The cell answers first what it has taken in, which takes as long as its longest answer: other loads go on.
        """
        done = [key for key in self.loaded if key not in self._wanted and not self._awaits_successor(key[0])]
        if not done:
            return
        for key in done:
            del self.loaded[key]
        self._ties.publish()
        await asyncio.sleep(DRAIN_SECONDS)
        for key in done:
            if key not in self.loaded:
                task = asyncio.create_task(self._free(cell, key))
                self._freeing[task] = key
                task.add_done_callback(self._freed)

    async def _free(self, cell: Cell, key: tuple[str, str]) -> None:
        try:
            await cell.unload(*key)
        except (LoadRefused, CellLost) as error:  # it was not there: as wanted; a cell that hangs is found by _look
            logger.info("unloading %s of tenant %s: %s", key[0], self.tenant, error)

    def _freed(self, task: asyncio.Task[None]) -> None:
        del self._freeing[task]
        self._forget_maps()
        self._ties.publish()
        self._changed.set()

    def _forget_maps(self) -> None:
        used = self.loaded.keys() | self._wanted.keys() | set(self._freeing.values())
        self._maps = {key: artefacts for key, artefacts in self._maps.items() if key in used}

    def _awaits_successor(self, name: str) -> bool:
        successors = [key for key in self._wanted if key[0] == name]
        return bool(successors) and not any(key in self.loaded for key in successors)

    async def _wait(self) -> None:
        """Until something changes, a failure is due again, or it is time to see whether the cell still answers."""
        due = min([failure.again_at for failure in self.failures.values()], default=float("inf"))
        seconds = max(0.0, min(LOOK_SECONDS, due - monotonic()))
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            await self._look()

    async def _look(self) -> None:
        if self.cell is None or not self._lives:
            return
        try:
            self._memory_bytes = await self.cell.resident_bytes(HANGING_SECONDS)
        except (CellLost, LoadRefused) as error:
            logger.warning("cell of tenant %s: %s: ended", self.tenant, error)
            self.cell.end()

    def _tell(self, wanted: Wanted, state: str, error_code: str | None = None) -> None:
        self._told[wanted.deployment] = state
        self._ties.report(Report(self.tenant, wanted.deployment, state, error_code, self._memory_bytes))

"""The node's agent: makes the cells be what the deployments' rows say, and tells the edge where they listen.

    database ─0.3 s→ read ─→ one Keeper per tenant and device ─→ cells       (rows.py, keeper.py, cells.py)
    Keepers ─→ cells.json (replaced by rename), replica rows, deployments' states
    agent.sock (datagrams) `want load` ─→ look now         agent.stream: `open` ─→ the key of an output

One event loop on the main thread; the database is visited by one thread of its own. While the database is away, what
is loaded goes on being served. Data keys pass through here briefly and are wiped where they can be.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from django.db import Error

from strongroom.deployments import rows
from strongroom.deployments.cells import Conditions, Zygote
from strongroom.deployments.keeper import Keeper, Ties
from strongroom.deployments.rows import Reading, Report, Reports, Wanted
from strongroom.deployments.shared import SharedWeights
from strongroom.deployments.targets import ASK_SOCKET, CELLS, OPEN_SOCKET
from strongroom.errors import StrongroomError, Unavailable
from strongroom.vault import services as vault

POLL_SECONDS = 0.3
BEAT_SECONDS = 5.0
STOP_SECONDS = 5.0
MAX_LINE_BYTES = 4096
PREFIX = "sr-"
LOCK = "agent.lock"
NAME_BYTES = 32  # "/cell-4194304-1000000.sock" and some more
SOCKET_PATH_BYTES = 107

logger = logging.getLogger(__name__)
T = TypeVar("T")


class AgentRefused(Exception):
    """Why this agent does not start, and the remedy."""


class Agent:
    """`prepare` before anything secret is read, then `await run()`. Everything runs on the event loop but `_visit`."""

    def __init__(self, home: Path, conditions: Conditions, *, parent: Path | None = None) -> None:
        self.home = home
        self.node = socket.gethostname()[:80]
        self.zygote = Zygote(conditions)
        self.folder = Path()
        self.keepers: dict[tuple[UUID, str], Keeper] = {}
        self.stopping = asyncio.Event()
        self._parent = parent
        self._lock = -1
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared: SharedWeights | None = None
        self._reports = Reports()
        self._reading: Reading | None = None
        self._generation = itertools.count(1)
        self._names = itertools.count(1)
        self._rung = asyncio.Event()
        self._published = b""
        self._database = ThreadPoolExecutor(1, "agent-database")
        self._database_away = False
        self._beat_at = 0.0

    def prepare(self) -> None:
        """The runtime folder and the zygote. AgentRefused; SandboxUnavailable."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentRefused(f"an agent runs already in {self.home}: stop it, or set STRONGROOM_HOME") from None
        self.zygote.start()
        self.folder = runtime_folder(self.home, self._parent)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Cells end with it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        self.zygote.watch()
        await self._check_root_keys()
        self._publish()
        server = await asyncio.start_unix_server(self._opened, str(self.folder / OPEN_SOCKET), limit=MAX_LINE_BYTES)
        with self._doorbell():
            logger.info("agent ready in %s", self.folder)
            await self._follow()
        server.close()
        await self._end()

    async def _check_root_keys(self) -> None:
        """AgentRefused with other root keys than the database's: every model would seem to be destroyed."""
        try:
            await self._visit(vault.verify_ring)
        except vault.WrongRing as error:
            self.zygote.end()
            self._forget_folder()
            raise AgentRefused(str(error)) from None
        except Error as error:
            logger.warning("the root keys cannot be checked now: the database answers %s", type(error).__name__)

    # --- what is wanted ---

    async def _follow(self) -> None:
        with contextlib.suppress(Error):
            await self._visit(rows.forget_replicas, self.node)
        while not self.stopping.is_set():
            try:
                await self._look()
                self._database_away = False
            except Error as error:
                if not self._database_away:
                    logger.warning("the database does not answer (%s): what is loaded stays", type(error).__name__)
                self._database_away = True
            except Exception:  # a defect: told once a look; the cells go on
                logger.exception("looking at the deployments failed")
            await self._pause()

    async def _look(self) -> None:
        reports = list(self._reports.waiting.values())
        if reports:
            await self._visit(rows.save, reports, self.node)
            self._reports.done(reports)
        if monotonic() - self._beat_at > BEAT_SECONDS and self.keepers:
            await self._visit(rows.beat, self.node)
            self._beat_at = monotonic()
        number = await self._visit(rows.generation)
        if self._reading is None or number != self._reading.generation:
            self._reading = await self._visit(rows.read)
            self._assign(self._reading)
        self._settle_draining(self._reading)

    def _assign(self, reading: Reading) -> None:
        """Each keeper gets its tenant's part; one that is new is started."""
        parts: dict[tuple[UUID, str], list[Wanted]] = {}
        for wanted in reading.wanted:
            parts.setdefault((wanted.tenant, wanted.device), []).append(wanted)
        for place in parts.keys() - self.keepers.keys():
            self._keep(*place)
        loading = reading.loading - self._reports.waiting.keys()  # what is known already is told soon
        for place, keeper in self.keepers.items():
            keeper.assign(parts.get(place, ()), loading)
        self._free_copies()

    def _keep(self, tenant: UUID, device: str) -> None:
        share = self._shared_weights().share
        ties = Ties(self.zygote, self.folder, self._order, share, self._reports_add, self._publish, self._name)
        keeper = self.keepers[(tenant, device)] = Keeper(tenant, device, ties)
        task = asyncio.create_task(keeper.run(), name=f"cell of {tenant}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._kept(done, (tenant, device), keeper))

    def _shared_weights(self) -> SharedWeights:
        if self._shared is None:
            self._shared = SharedWeights(self.zygote, self.folder, self._name)
        return self._shared

    def _free_copies(self) -> None:
        """Of shared weights that no cell maps any more, or is about to."""
        if self._shared is not None:
            self._shared.keep(set().union(*(keeper.maps for keeper in self.keepers.values())))

    def _kept(self, task: asyncio.Task[None], place: tuple[UUID, str], keeper: Keeper) -> None:
        """Nothing is wanted there any more; what came meanwhile is read again."""
        self._tasks.discard(task)
        if self.keepers.get(place) is keeper:
            del self.keepers[place]
        self._reading = None
        self._publish()
        self._rung.set()

    def _settle_draining(self, reading: Reading) -> None:
        for tenant, deployment, name in reading.draining:
            if not any(keeper.serves(name) for place, keeper in self.keepers.items() if place[0] == tenant):
                # Taken along by the next look, not at once: another node may still have it.
                self._reports.add(Report(tenant, deployment, "stopped"))

    def _reports_add(self, report: Report) -> None:
        self._reports.add(report)
        self._rung.set()

    async def _order(self, wanted: Wanted) -> rows.Order:
        try:
            return await self._visit(rows.order, wanted)
        except Error:
            raise Unavailable("the database does not answer", code="database_unavailable") from None

    async def _visit(self, call: Callable[..., T], *arguments: object) -> T:
        """One visit to the database, in its thread."""

        def visit() -> T:
            try:
                return call(*arguments)
            except Error:
                rows.after_failure()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._database, visit)

    async def _pause(self) -> None:
        """Until the next look; at once where something happened, but never without a breath."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        rung = asyncio.ensure_future(self._rung.wait())
        await asyncio.wait({stopping, rung}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for waiter in (stopping, rung):
            waiter.cancel()
        self._rung.clear()
        await asyncio.sleep(0.01)

    # --- what the edge sees ---

    def _name(self) -> str:
        return f"cell-{os.getpid()}-{next(self._names)}.sock"

    def _publish(self) -> None:
        """cells.json, by rename, where something changed."""
        self._free_copies()
        cells = [described(keeper) for keeper in self.keepers.values()]
        text = json.dumps(cells).encode()
        if text == self._published:
            return
        self._published = text
        document = {"generation": next(self._generation), "cells": cells}
        temporary = self.folder / f".{CELLS}"
        temporary.write_text(json.dumps(document))
        os.replace(temporary, self.folder / CELLS)

    @contextlib.contextmanager
    def _doorbell(self) -> Any:
        """agent.sock: whoever finds a deployment not loaded rings. Nothing is answered."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
            bell.bind(str(self.folder / ASK_SOCKET))
            bell.setblocking(False)
            loop.add_reader(bell.fileno(), self._ring, bell)
            try:
                yield
            finally:
                loop.remove_reader(bell.fileno())

    def _ring(self, bell: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                try:
                    want = json.loads(bell.recv(MAX_LINE_BYTES))
                    tenant = UUID(want["tenant"])
                except (ValueError, KeyError, TypeError):
                    continue
                for place, keeper in self.keepers.items():
                    if place[0] == tenant:
                        keeper.hurry()
                self._rung.set()

    async def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """agent.stream: one JSON object a line, one answer a line."""
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._key(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # the line is too long, or nobody reads
            pass
        finally:
            writer.close()

    async def _key(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            tenant, artefact = UUID(asked["tenant"]), UUID(asked["artefact"])
        except (ValueError, KeyError, TypeError):
            return {"type": "refused", "code": "malformed_body"}
        try:
            found = await self._visit(rows.output_key, tenant, artefact)
        except StrongroomError as error:
            return {"type": "refused", "code": error.code}
        except Error:
            return {"type": "refused", "code": "database_unavailable"}
        except Exception as error:
            logger.warning("an output of tenant %s does not open: %s", tenant, type(error).__name__)
            return {"type": "refused", "code": "internal"}
        if found is None:
            return {"type": "refused", "code": "not_found"}
        header_tag, data_key = (base64.b64encode(part).decode() for part in found)
        return {"type": "key", "header_tag": header_tag, "data_key": data_key}

    async def _end(self) -> None:
        """The edge hears of it first, the rows last; cells end with their connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.keepers.clear()
        self._publish()
        self.zygote.end()
        with contextlib.suppress(Error, TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._visit(rows.forget_replicas, self.node)
        self._database.shutdown(wait=False, cancel_futures=True)
        self._forget_folder()

    def _forget_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.home / "runtime").unlink(missing_ok=True)


def described(keeper: Keeper) -> dict[str, Any]:
    """One entry of cells.json."""
    cell = keeper.cell
    living = cell is not None and not cell.ended.is_set()
    return {
        "tenant": str(keeper.tenant),
        "device": keeper.device,
        "socket": cell.path.name if cell is not None and living else "",
        "pid": cell.pid if cell is not None and living else None,
        "state": keeper.state,
        "deployments": _by_name(keeper.loaded),
        "failed": _by_name(key for key, failure in keeper.failures.items() if not failure.passing),
    }


def _by_name(keys: Any) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, version in keys:
        names.setdefault(name, []).append(version)
    return names


def runtime_folder(home: Path, parent: Path | None) -> Path:
    """A fresh folder with a short path, 0700; its path is written to `home/runtime`, by rename. The last one goes."""
    pointer = home / "runtime"
    with contextlib.suppress(OSError):
        last = Path(pointer.read_text().strip())
        if last.name.startswith(PREFIX) and last.is_dir() and last.stat().st_uid == os.getuid():
            shutil.rmtree(last, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    if len(os.fsencode(folder)) + NAME_BYTES > SOCKET_PATH_BYTES:
        folder.rmdir()
        raise AgentRefused(f"{folder.parent} is too long a path for sockets: set STRONGROOM_RUNTIME to a shorter one")
    temporary = home / ".runtime"
    temporary.write_text(str(folder))
    os.replace(temporary, pointer)
    return folder

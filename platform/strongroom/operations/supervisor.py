"""Starts our processes, restarts what dies, stops all in reverse order; none outlives it, not even after kill -9.

It knows programs by name and argument list, nothing of what they do. One thread, one event loop, the standard library:
the known supervisors leave every child running after kill -9 of themselves.

Each child leads a process group, so Ctrl-C reaches the supervisor alone and it decides the order. Each is killed by the
kernel when the thread that runs this loop ends; a child that starts processes does the same for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sandbox import die_with

log = logging.getLogger(__name__)

DEATHS_ALLOWED = 5
WINDOW_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep. `once`: it ends by itself; with 0 that is fine, with anything else the whole ends.

    `log`: a file that takes what it prints, appended to; without one it prints where the supervisor does.
    """

    name: str
    argv: Sequence[str]
    stop_seconds: float = 8.0
    once: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None

    def output(self) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        return contextlib.nullcontext(None) if self.log is None else self.log.open("ab")


class Supervisor:
    """`await run()` in the main thread; it returns the exit code when everything has ended."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = programs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopping = asyncio.Event()
        self.exit_code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)
        keepers = [asyncio.create_task(self._keep(program)) for program in self.programs]
        await self.stopping.wait()
        for program in reversed(self.programs):
            await self._stop(program)
        await asyncio.gather(*keepers)
        return self.exit_code

    def _asked_to_stop(self) -> None:
        if self.stopping.is_set():  # a second time: no more patience
            for process in self.running.values():
                _kill_group(process)
        self.stopping.set()

    def _give_up(self, reason: str) -> None:
        log.error(reason)
        self.exit_code = 1
        self.stopping.set()

    async def _keep(self, program: Program) -> None:
        deaths: list[float] = []
        while not self.stopping.is_set():
            try:
                code = await self._run_once(program)
            except OSError as error:
                self._give_up(f"{program.name} cannot be started: {error}")
                return
            if self.stopping.is_set():
                return
            if program.once:
                if code != 0:
                    self._give_up(f"{program.name} failed with {code}")
                return
            now = time.monotonic()
            deaths = [*(at for at in deaths if now - at < WINDOW_SECONDS), now]
            log.warning("%s ended with %s (%d of %d)", program.name, code, len(deaths), DEATHS_ALLOWED)
            if len(deaths) >= DEATHS_ALLOWED:
                told = "" if program.log is None else f"; its last words are in {program.log}"
                self._give_up(f"{program.name} keeps dying: giving up{told}")
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), min(0.1 * 2 ** len(deaths), LONGEST_PAUSE_SECONDS))

    async def _run_once(self, program: Program) -> int:
        with program.output() as output:
            process = subprocess.Popen(  # noqa: ASYNC220  # returns at exec; there is nothing else to do meanwhile
                list(program.argv),
                env=os.environ | program.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                # Between fork and exec; safe because this process has one thread.
                preexec_fn=_tied_to(os.getpid()),
            )
        self.running[program.name] = process
        log.info("%s started, pid %d", program.name, process.pid)
        await gone(process)
        _kill_group(process)  # what it left behind; before the pid is reaped and may be another's
        return process.wait()

    async def _stop(self, program: Program) -> None:
        process = self.running.get(program.name)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(gone(process), program.stop_seconds)
        except TimeoutError:
            log.warning("%s did not stop within %.0f s: killed", program.name, program.stop_seconds)
            _kill_group(process)


async def gone(process: subprocess.Popen[bytes]) -> None:
    """Until it has ended, by the kernel's own notice: no thread, no child watcher. Nothing is reaped here."""
    if process.returncode is not None:
        return
    loop, notice = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    try:
        loop.add_reader(descriptor, notice.set)
        await notice.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _tied_to(supervisor: int) -> Callable[[], None]:
    def before_exec() -> None:
        die_with(supervisor)

    return before_exec


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

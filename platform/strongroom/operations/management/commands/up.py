"""Everything on this machine under one supervisor: agent, scheduler, worker, web; with --demo a newcomer's first model.

Brings the database to this version first. Ctrl-C ends every process. Says nothing of how they talk (processes.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from strongroom.operations.management.commands import web
from strongroom.operations.supervisor import Program, Supervisor

PROGRAMS = ("agent", "scheduler", "worker", "web")
LOG_BYTES = 10 * 1024 * 1024


class Command(BaseCommand):
    help = "Start web, worker, scheduler and agent on this machine and keep them running."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--demo", action="store_true", help="train, deploy and call a model of handwritten digits")
        parser.add_argument("--language", action="store_true", help="with --demo: language models too")

    def handle(self, *args: Any, **options: Any) -> None:
        home = settings.ENVIRONMENT.home_path
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(home):
            web.listen(settings.ENVIRONMENT).close()  # a port that is taken is said now, not by a process that dies
            self.run(home, options["demo"], options["language"])

    def run(self, home: Path, demo: bool, language: bool) -> None:
        call_command("migrate", verbosity=0)
        logs = home / "logs" if demo else None
        if logs is not None:
            self.stdout.write(f"home {home}, logs in {logs}")
            self.stdout.flush()
        programs = [Program(name, self.argv(name), log=_log(logs, name)) for name in PROGRAMS]
        if demo:
            arguments = ["--language"] if language else []
            programs.append(Program("demo", [*self.argv("demo"), *arguments], once=True))
        code = asyncio.run(Supervisor(programs).run())
        if code:
            raise SystemExit(code)

    def argv(self, name: str) -> list[str]:
        return [sys.executable, str(Path(sys.argv[0]).resolve()), name]


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Holds the home's lock; CommandError where another does."""
    with open(home / "up.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"everything runs already in {home}: stop that, or set STRONGROOM_HOME") from None
        yield


def _log(folder: Path | None, name: str) -> Path | None:
    """The program's log file; the one of an earlier run is put aside when it has grown large."""
    if folder is None:
        return None
    folder.mkdir(exist_ok=True, mode=0o700)
    path = folder / f"{name}.log"
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path

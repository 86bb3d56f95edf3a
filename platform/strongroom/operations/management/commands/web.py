"""`manage.py web`: the front door. One process, or STRONGROOM_WEB_PROCESSES that share the listening socket.

With several, this process only listens and watches: it starts each server process with the socket, starts a lost one
again and hands the stop signal on. A server process whose parent is gone ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from strongroom.operations import ring
from strongroom.settings.environment import Environment

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 30.0
RESTART_SECONDS = 0.5


class Command(BaseCommand):
    help = "Serve the API, the panel and predictions on STRONGROOM_BIND:STRONGROOM_PORT."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--descriptor", type=int, help="an inherited listening socket (used by web itself)")
        parser.add_argument("--parent", type=int, help="the process that started this one (used by web itself)")

    def handle(self, *args: Any, descriptor: int | None = None, parent: int | None = None, **options: Any) -> None:
        if descriptor is not None:
            _die_with(parent)
            _serve(socket.socket(fileno=descriptor))
            return
        ring.verify()
        listener = listen(settings.ENVIRONMENT)
        processes = max(1, settings.ENVIRONMENT.number("web_processes"))
        if processes == 1:
            _serve(listener)
        else:
            Processes(listener, processes).run()


def listen(environment: Environment) -> socket.socket:
    """The front door's socket; CommandError where it cannot be had."""
    from strongroom.edge import server

    bind, port = environment.bind, environment.number("port")
    try:
        return server.listen(bind, port)
    except OSError as error:
        remedy = (
            "stop what uses it or set STRONGROOM_PORT" if error.errno == errno.EADDRINUSE else "set STRONGROOM_BIND"
        )
        raise CommandError(f"cannot listen on {bind}:{port}: {error.strerror}; {remedy}") from None


def _serve(listener: socket.socket) -> None:
    from strongroom.asgi import application
    from strongroom.edge import server, watch

    server.serve(application, listener, stopping=watch.WATCHES.end)


def _die_with(parent: int | None) -> None:
    """The parent's number is handed over, not asked for: in a container it can rightly be 1."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the web process that started this one is gone")


class Processes:
    """The server processes of this front door; everything runs on the main thread."""

    def __init__(self, listener: socket.socket, count: int) -> None:
        self.listener = listener
        self.children: list[subprocess.Popen[bytes]] = []
        self.count = count
        self.stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self.stopping:
            self.children = [child for child in self.children if child.poll() is None]
            while len(self.children) < self.count and not self.stopping:
                self.children.append(self._start())
            time.sleep(RESTART_SECONDS)
        self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        numbers = ["--descriptor", str(self.listener.fileno()), "--parent", str(os.getpid())]
        command = [sys.executable, sys.argv[0], "web", *numbers]
        return subprocess.Popen(command, pass_fds=[self.listener.fileno()], stdin=subprocess.DEVNULL)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _end(self) -> None:
        self.listener.close()
        for child in self.children:
            child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self.children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()

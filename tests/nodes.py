"""Our real processes for a test: web, agent, worker, scheduler on a free port, with a database and home of their own.

A node runs in production mode on the session's PostgreSQL and Redis (a database cloned from one that is migrated once),
or in embedded mode on SQLite and files. Every process is ended by its pid; none outlives pytest. What the processes do
is for the tests to say.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tests import servers

ROOT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(ROOT / "manage.py")]
PROCESSES = ("web", "scheduler", "agent", "worker")
READY_SECONDS = 60
STOP_SECONDS = 20
REDIS_DATABASES = 500

Mode = Literal["production", "embedded"]


class Node:
    """Started by hand, process by process, so that a test decides what is up. Use as a context, or `end()` it."""

    def __init__(
        self,
        mode: Mode | None = None,
        *,
        broker: servers.Redis | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        production = "STRONGROOM_BROKER_URL" in servers.session_variables()
        self.mode: Mode = mode or ("production" if production else "embedded")
        self.folder = Path(tempfile.mkdtemp(prefix="node-", dir=servers.session_folder()))
        self.home, self.logs = self.folder / "home", self.folder / "logs"
        self.logs.mkdir()
        self.home.mkdir(mode=0o700)
        self.port = servers.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = f"node_{uuid.uuid4().hex[:12]}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**_inherited(), **self._settings(broker), **(settings or {})}
        self._clone()

    def _settings(self, broker: servers.Redis | None) -> dict[str, str]:
        values = {"HOME": str(self.home), "PORT": str(self.port), "RUNTIME": str(self.folder), "MODE": self.mode}
        if self.mode == "production":
            values |= _urls(self.database)
            values["BROKER_URL"] = f"{broker.url}/0" if broker else _next_broker()
        return {f"STRONGROOM_{name}": value for name, value in values.items()}

    def _clone(self) -> None:
        migrated = _template(self.mode)
        if self.mode == "embedded":
            shutil.copy(migrated, self.home / "strongroom.sqlite3")
        else:
            _administer(f'CREATE DATABASE "{self.database}" TEMPLATE "{migrated}" OWNER owner')

    # --- commands

    def manage(self, *argv: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """`manage.py ARGV` to its end; what it wrote is in stdout and stderr."""
        done = subprocess.run(
            [*MANAGE, *argv], env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"manage.py {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def shell(self, program: str) -> Any:
        """Runs Python inside the control plane (Django set up) and answers the JSON that it printed last."""
        return json.loads(self.manage("shell", "--no-imports", "-c", program).stdout.splitlines()[-1])

    # --- processes

    def start(self, *names: str, arguments: Sequence[str] = (), **settings: str) -> Node:
        """All four, or those named: `start("worker")`, twice with `start("worker:2")`. Settings are STRONGROOM_…"""
        extra = {f"STRONGROOM_{name.upper()}": value for name, value in settings.items()}
        for name in names or PROCESSES:
            assert name not in self.processes or self.processes[name].poll() is not None, f"{name} runs already"
            with open(self.logs / f"{name}.log", "ab") as log:
                self.processes[name] = subprocess.Popen(
                    servers.tied([*MANAGE, name.partition(":")[0], *arguments]),
                    env=self.environment | extra,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )
        for name in names or PROCESSES:
            self._wait(name, lambda name=name: _hears_sigterm(self.pid(name)))  # type: ignore[misc]  # bound now
        if "web" in (names or PROCESSES):
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        self._wait("web", lambda: self.status("/api/v1/health/ready") == 200)

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        ends = time.monotonic() + READY_SECONDS
        while not condition():
            code = self.processes[name].poll()
            if code is not None or time.monotonic() > ends:
                raise AssertionError(f"{name} is not ready (exit code {code}):\n{self.log(name)}")
            time.sleep(0.05)

    def status(self, path: str) -> int | None:
        """The status of a GET without a key; None where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310  # http to ourselves
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def pid(self, name: str) -> int:
        return self.processes[name].pid

    def kill(self, name: str) -> None:
        """kill -9, reaped."""
        process = self.processes[name]
        process.kill()
        process.wait()

    def stop(self, name: str, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM as a supervisor sends it; the exit code. Past `seconds` it is killed and the test fails."""
        process = self.processes[name]
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill(name)
            raise AssertionError(f"{name} did not stop within {seconds} s:\n{self.log(name)}") from None

    def log(self, name: str) -> str:
        """The end of what a process wrote."""
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def descendants(self) -> list[int]:
        """Pids of every living process below this node's, for tests that look into them or count what is left."""
        return [pid for process in self.processes.values() for pid in below(process.pid)]

    def end(self) -> None:
        """Everything gone: processes (newest first), database, folder."""
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + 5
        for process in reversed(self.processes.values()):
            try:
                process.wait(max(0.1, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.mode == "production":
            _administer(f'DROP DATABASE IF EXISTS "{self.database}" WITH (FORCE)')
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _inherited() -> dict[str, str]:
    """The environment without anything that is ours: a node is told everything by its own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STRONGROOM_", "PYTEST_"))}
    return kept | {"DJANGO_SETTINGS_MODULE": "strongroom.settings", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _urls(database: str) -> dict[str, str]:
    names = {"DATABASE_URL": "app", "SYSTEM_DATABASE_URL": "system", "OWNER_DATABASE_URL": "owner"}
    return {name: _address(role, database) for name, role in names.items()}


def _address(role: str, database: str) -> str:
    _, _, server = servers.session_variables()["STRONGROOM_OWNER_DATABASE_URL"].partition("@")
    return f"postgresql://{role}@{server.partition('/')[0]}/{database}"


def _administer(statement: str) -> None:
    servers.execute(_address("postgres", "postgres"), statement)


def _next_broker() -> str:
    """A Redis database that no other node of this session uses."""
    with _locked("broker"):
        counter = servers.session_folder() / "next-broker"
        number = int(counter.read_text()) if counter.exists() else 64  # below: the xdist workers' own
        counter.write_text(str(number + 1))
    server = servers.session_variables()["STRONGROOM_BROKER_URL"].rpartition("/")[0]
    return f"{server}/{number % REDIS_DATABASES}"


def _template(mode: Mode) -> str:
    """A migrated database (its name) or SQLite file (its path), made by whoever needs it first in this session."""
    with _locked(f"template-{mode}"):
        home = servers.session_folder() / f"template-{mode}"
        done = home / "done"
        if not done.exists():
            home.mkdir(mode=0o700, exist_ok=True)
            settings = {"STRONGROOM_HOME": str(home), "STRONGROOM_MODE": mode}
            if mode == "production":
                _administer("CREATE DATABASE strongroom_template OWNER owner")
                addresses = {**_urls("strongroom_template"), "BROKER_URL": "redis://127.0.0.1:1/0"}
                settings |= {f"STRONGROOM_{name}": value for name, value in addresses.items()}
            subprocess.run([*MANAGE, "migrate", "-v", "0"], env=_inherited() | settings, cwd=home, check=True)
            done.touch()
    return str(home / "strongroom.sqlite3") if mode == "embedded" else "strongroom_template"


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One at a time over all of pytest-xdist's workers."""
    with open(servers.session_folder() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hears_sigterm(pid: int) -> bool:
    """Whether a process has come so far that it stops in order: by the kernel's mask of caught signals."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def below(pid: int) -> list[int]:
    """Children and theirs, parents first, by /proc; a process that ended meanwhile is left out."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(text) for task in tasks for text in (task / "children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (child, *below(child))]

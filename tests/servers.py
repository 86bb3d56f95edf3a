"""The tests' own PostgreSQL and Redis: started once a session in temporary folders on free ports, ended with it.

A pytest plugin (`-p tests.servers` in pyproject.toml) because Django's settings read the environment before any
conftest is loaded. pytest-xdist's workers inherit the servers by the environment. STRONGROOM_TEST_MODE=embedded starts
none (SQLite, files). `python -m tests.servers --install` brings what is missing by apt. It knows nothing of our own
processes: those are tests/nodes.py.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import pytest

# Set by the first process of a session; a worker that finds it starts nothing.
FOLDER_VARIABLE = "STRONGROOM_TEST_FOLDER"
KEPT_VARIABLES = (FOLDER_VARIABLE, "STRONGROOM_TEST_MODE", "STRONGROOM_PROOF")
PACKAGES = {"postgres": "postgresql", "redis-server": "redis-server", "chromium": "chromium"}
CLUSTER_SETTING = Path("/etc/postgresql-common/createcluster.conf")
START_SECONDS = 30
PORTS = (15_000, 32_000)

ROLES = """
CREATE ROLE owner LOGIN NOSUPERUSER CREATEDB NOCREATEROLE;
CREATE ROLE app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE ROLE system LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS;
"""


# --- what is installed


def postgres_folder() -> Path | None:
    """Debian keeps each version's binaries in a folder of its own, off the path; the newest counts."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    found += [Path(path).parent for path in [shutil.which("postgres")] if path]
    return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0, default=None)


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def missing() -> list[str]:
    """Debian's packages that the whole suite needs and this machine lacks."""
    found = {"postgres": postgres_folder(), "redis-server": shutil.which("redis-server"), "chromium": chromium()}
    return [package for name, package in PACKAGES.items() if not found[name]]


def install(packages: Sequence[str]) -> None:
    """By apt as root; otherwise say exactly what to type and end."""
    if not packages:
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            f"the tests need {', '.join(packages)}; install them:\n"
            f"  sudo mkdir -p {CLUSTER_SETTING.parent}\n"
            f"  echo 'create_main_cluster = false' | sudo tee {CLUSTER_SETTING}\n"
            f"  sudo apt-get install -y --no-install-recommends {' '.join(packages)}\n"
            "or run the quick part without servers: make fast"
        )
    if "postgresql" in packages and not CLUSTER_SETTING.exists():
        CLUSTER_SETTING.parent.mkdir(parents=True, exist_ok=True)
        CLUSTER_SETTING.write_text("create_main_cluster = false\n")
    # RUNLEVEL 1: the packages' scripts start no service of their own
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *packages]):
        print("apt-get", *command, flush=True)
        subprocess.run(["apt-get", *command], env=quiet, check=True, stdout=subprocess.DEVNULL)


# --- starting and ending


def tied(argv: Sequence[str], *, user: str | None = None) -> list[str]:
    """The same program, killed with the thread that starts it, so that nothing outlives a killed pytest."""
    identity = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    return ["setpriv", *identity, "--pdeathsig=KILL", *argv]


def free_port() -> int:
    """Below the kernel's own choice for outgoing connections: else one of them may take it before, or while, we do."""
    while True:
        port = random.SystemRandom().randrange(*PORTS)  # tests may seed the other one alike
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Redis:
    """One server on one port; a fault test kills it and starts it again on the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "databases": "512"}
        options |= {"dir": str(self.folder), "logfile": str(self.folder / "log")}
        argv = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", value))]
        self.process = subprocess.Popen(tied(argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers, "redis-server", self.process, self.folder / "log")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"


class PostgreSQL:
    """One cluster with the three roles. As root it runs as the user postgres: the server refuses root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.user = _unprivileged() if os.getuid() == 0 else None
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user:
            shutil.chown(self.folder, self.user)
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, role: str, database: str = "strongroom") -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        binaries, data, log = postgres_folder(), str(self.folder / "data"), self.folder / "log"
        assert binaries is not None
        initdb = [str(binaries / "initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(
            tied([*initdb, "--locale=C.UTF-8"], user=self.user), check=True, stdout=subprocess.DEVNULL, cwd="/"
        )
        # Nothing of this cluster is to survive a power cut; what our processes survive is their own kill -9.
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder), "fsync": "off"}
        settings |= {"full_page_writes": "off", "max_connections": "200", "shared_buffers": "64MB"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        argv = [str(binaries / "postgres"), "-D", data, "-p", str(self.port), *options]
        with open(log, "wb") as output:
            self.process = subprocess.Popen(tied(argv, user=self.user), stdout=output, stderr=output, cwd="/")
        wait_for(self._answers, "postgres", self.process, log)
        for statement in (*ROLES.strip().splitlines(), "CREATE DATABASE strongroom OWNER owner"):
            execute(self.url("postgres", "postgres"), statement)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)  # at once, its own children too
            self.process.wait()

    def _answers(self) -> bool:
        with psycopg.connect(self.url("postgres", "postgres"), connect_timeout=1):
            return True


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]  # text made here, no value of anyone's


def wait_for(answers: object, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    assert callable(answers)
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError, psycopg.OperationalError):
            if answers():
                return
        time.sleep(0.02)
    tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise RuntimeError(f"{name} did not start (exit code {process.poll()}):\n{tail}")


# --- one session of pytest


def production(postgresql: PostgreSQL, redis: Redis) -> dict[str, str]:
    """What settings/test.py reads in this process, and what tests/nodes.py makes its own databases with."""
    return {
        "STRONGROOM_MODE": "test",
        "STRONGROOM_DATABASE_URL": postgresql.url("app"),
        "STRONGROOM_SYSTEM_DATABASE_URL": postgresql.url("system"),
        "STRONGROOM_OWNER_DATABASE_URL": postgresql.url("owner"),
        "STRONGROOM_BROKER_URL": f"{redis.url}/0",
    }


def start_session() -> Mapping[str, str]:
    """Start what the mode needs and arrange its end; the variables that describe it."""
    folder = Path(tempfile.mkdtemp(prefix="sr-tests-"))
    folder.chmod(0o711)  # the cluster's user passes through; it cannot list
    started: list[PostgreSQL | Redis] = []
    atexit.register(_end_session, folder, started, os.getpid())
    variables = {FOLDER_VARIABLE: str(folder), "STRONGROOM_MODE": "embedded"}
    if os.environ.get("STRONGROOM_TEST_MODE") != "embedded":
        install([package for package in missing() if package != "chromium"])
        postgresql, redis = PostgreSQL(folder / "postgresql"), Redis(folder / "redis")
        for server in (postgresql, redis):
            started.append(server)
            server.start()
        variables |= production(postgresql, redis)
    (folder / "session.json").write_text(json.dumps(variables))
    return variables


def _end_session(folder: Path, started: Sequence[PostgreSQL | Redis], owner: int) -> None:
    if os.getpid() != owner:  # a process that a test forked
        return
    for server in reversed(started):
        server.kill()
    shutil.rmtree(folder, ignore_errors=True)


def session_folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def session_variables() -> dict[str, str]:
    """As the first process of the session set them; tests may have changed their own environment since."""
    return dict(json.loads((session_folder() / "session.json").read_text()))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if early_config.known_args_namespace.help or early_config.known_args_namespace.version:
        return
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    # A developer's own settings have no say; what a test needs it sets itself.
    for name in [name for name in os.environ if name.startswith("STRONGROOM_")]:
        del os.environ[name]
    os.environ.update(kept)
    os.environ.update(session_variables() if FOLDER_VARIABLE in kept else start_session())
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    home = session_folder() / f"home-{worker}"
    home.mkdir(mode=0o700, exist_ok=True)
    os.environ |= {"STRONGROOM_HOME": str(home), "STRONGROOM_RUNTIME": str(session_folder())}
    if os.environ["STRONGROOM_MODE"] == "test" and worker != "main":
        url = os.environ["STRONGROOM_BROKER_URL"].rpartition("/")[0]
        os.environ["STRONGROOM_BROKER_URL"] = f"{url}/{int(worker.removeprefix('gw')) + 1}"


def main() -> None:
    if sys.argv[1:] == ["--install"]:
        install(missing())
    elif packages := missing():
        sys.exit(f"missing: {' '.join(packages)}; python -m tests.servers --install brings them")
    else:
        print("PostgreSQL, Redis and Chromium are here")


if __name__ == "__main__":
    main()

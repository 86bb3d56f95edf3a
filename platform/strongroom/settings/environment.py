"""The environment, read once: every STRONGROOM_ variable with its type, its default and its meaning.

Nothing else of the control plane reads them (a child is told by its parent); docs/settings.md comes from this table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "STRONGROOM_"


def setting(default: str, about: str) -> Any:
    """One variable: its default as it would be written in the environment, and its line in docs/settings.md."""
    return field(default=default, metadata={"default": default, "about": about})


class SettingInvalid(SystemExit):
    """An environment variable cannot be used; the message names it, its value's problem and the remedy."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The raw text of every variable. Typed readings are the properties below."""

    home: str = setting(
        ".strongroom", "Folder of this installation: database (embedded), objects, keys, logs of `up --demo`."
    )
    mode: str = setting(
        "embedded", "`embedded` (SQLite, files, no server), `production`, or `test` (the tests' servers)."
    )
    port: str = setting("8000", "Port of the front door.")
    bind: str = setting("127.0.0.1", "Address that the front door listens on.")
    database_url: str = setting("", "PostgreSQL address, role app: `postgresql://app:…@host:5432/strongroom`.")
    system_database_url: str = setting(
        "", "The same database, role system: claim, sweep, agent, key look-up, operator's site."
    )
    owner_database_url: str = setting("", "The same database, role owner: migrations only.")
    broker_url: str = setting("", "Redis address of Celery's broker; embedded mode uses files.")
    store_url: str = setting("", "Object store: `file:///folder`; default the folder `objects` of the home.")
    kms: str = setting("", "Root keys: `ring:FOLDER`; default the folder `keys` of the home.")
    secret_key_file: str = setting(
        "", "File with Django's secret key; default `secret_key` in the home, made on first use."
    )
    allowed_hosts: str = setting(
        "127.0.0.1,localhost,[::1]", "Host names that Django's routes (panel, API) answer to, by commas."
    )
    trusted_proxies: str = setting("", "Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed, by commas.")
    sandbox: str = setting(
        "auto",
        "`require`: worker and agent refuse to start without the whole sandbox, and web is not ready; "
        "`auto` takes what there is; `off`.",
    )
    web_processes: str = setting("1", "Web processes that share the port.")
    jobs_per_worker: str = setting("2", "Long jobs at once per worker; one slot more is kept for short kinds.")
    runtime: str = setting("", "Parent of the runtime folder (sockets); default $TMPDIR.")
    queues: str = setting("cpu", "Queues (device classes) that this worker serves, by commas.")
    threads_per_cell: str = setting("1", "Threads that one cell computes with.")
    language_threads: str = setting("0", "Threads that one language model computes with; 0 for all cores.")
    max_body_bytes: str = setting("8388608", "Largest body of a prediction.")
    max_upload_bytes: str = setting("68719476736", "Largest upload; a tenant's own limit may be lower.")
    lease_seconds: str = setting("6", "A job whose worker is silent this long goes to another; it speaks every 2 s.")
    stale_seconds: str = setting("300", "How long known keys and loaded models serve while the database is away.")
    log: str = setting("text", "`json` or `text`.")

    @property
    def home_path(self) -> Path:
        return Path(self.home).resolve()

    @property
    def store_path(self) -> Path:
        if self.store_url and not self.store_url.startswith("file://"):
            raise SettingInvalid("STRONGROOM_STORE_URL: only file:///folder is built in this version")
        return Path(self.store_url.removeprefix("file://")) if self.store_url else self.home_path / "objects"

    @property
    def ring_path(self) -> Path:
        if self.kms and not self.kms.startswith("ring:"):
            raise SettingInvalid("STRONGROOM_KMS: only ring:FOLDER is built in this version")
        return Path(self.kms.removeprefix("ring:")).resolve() if self.kms else self.home_path / "keys"

    @property
    def secret_key_path(self) -> Path:
        return Path(self.secret_key_file).resolve() if self.secret_key_file else self.home_path / "secret_key"

    def number(self, name: str) -> int:
        """The variable as a whole number ≥ 0, or SettingInvalid."""
        text = getattr(self, name)
        if not text.isdigit():
            raise SettingInvalid(f"{PREFIX}{name.upper()} must be a whole number, is {text!r}")
        return int(text)

    def listed(self, name: str) -> list[str]:
        return [part.strip() for part in getattr(self, name).split(",") if part.strip()]


CHOICES = {"mode": {"embedded", "production", "test"}, "sandbox": {"auto", "require", "off"}, "log": {"json", "text"}}


def read(variables: Mapping[str, str] | None = None) -> Environment:
    """The Environment of this process; SettingInvalid for a value outside its choices."""
    variables = os.environ if variables is None else variables
    names = [f.name for f in fields(Environment)]
    given = {name: variables[PREFIX + name.upper()] for name in names if variables.get(PREFIX + name.upper())}
    environment = Environment(**given)
    for name, allowed in CHOICES.items():
        if (value := getattr(environment, name)) not in allowed:
            raise SettingInvalid(f"{PREFIX}{name.upper()} must be one of {', '.join(sorted(allowed))}, is {value!r}")
    return environment

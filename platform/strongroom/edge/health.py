"""Whether this node lives and can serve: GET /health/live, /health/ready. No key, no tenant, nothing secret.

Ready is 503 only where a prediction could not be served. Checks run in threads, are kept for a second so that a busy
balancer costs nothing, and each has a time-out.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import Error, connections

import sandbox
from strongroom.access.generations import GENERATIONS
from strongroom.edge import database, http
from strongroom.vault import services as vault

FRESH_SECONDS = 1.0
CHECK_SECONDS = 5.0
BROKER_SECONDS = 0.5

_kept: tuple[float, dict[str, str]] = (float("-inf"), {})
_running: asyncio.Task[dict[str, str]] | None = None


async def live(request: http.Request) -> http.Answer:
    return http.Answer.of(200, {"status": "ok"})


async def ready(request: http.Request) -> http.Answer:
    checks = await _checks()
    degraded = any(checks[name] != "ok" for name in ("database", "broker", "store", "root_keys"))
    status = 200 if _can_predict(checks) else 503
    document = {"status": "degraded" if degraded or status == 503 else "ok", "checks": checks}
    return http.Answer.of(status, document)


async def can_predict() -> bool:
    return _can_predict(await _checks())


def _can_predict(checks: dict[str, str]) -> bool:
    """Known keys and loaded models outlive the database for a while; the sandbox may be required."""
    stale = settings.ENVIRONMENT.number("stale_seconds")
    if checks["database"] != "ok" and GENERATIONS.silent_seconds() > stale:
        return False
    return settings.ENVIRONMENT.sandbox != "require" or not checks["sandbox"].startswith("lacks")


async def _checks() -> dict[str, str]:
    """The checks, at most a second old; one round for all who ask."""
    global _running
    if monotonic() - _kept[0] < FRESH_SECONDS:
        return _kept[1]
    if _running is None or _running.done():
        _running = asyncio.create_task(_look())
    return await asyncio.shield(_running)


async def _look() -> dict[str, str]:
    global _kept
    names = list(CHECKS)
    found = await asyncio.gather(*[_one(CHECKS[name]) for name in names])
    checks = dict(zip(names, found, strict=True))
    _kept = (monotonic(), checks)
    return checks


async def _one(check: Callable[[], str]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await database.run(check)
    except TimeoutError:
        return "down: no answer"
    except Exception as error:
        return f"down: {type(error).__name__}"


def _database() -> str:
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
        return "ok"
    except Error:
        connections["default"].close()
        return "down: known keys and loaded models go on for a while"


def _broker() -> str:
    """Without it jobs still start: the sweep finds them."""
    celery: dict[str, Any] = settings.CELERY
    url = str(celery["broker_url"])
    down = "down: wake-ups by sweep"
    if url.startswith("filesystem:"):
        folder = celery["broker_transport_options"]["data_folder_in"]
        return "ok" if os.access(folder, os.W_OK) else down
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), BROKER_SECONDS) as broker:
            broker.settimeout(BROKER_SECONDS)
            broker.sendall(b"PING\r\n")
            return "ok" if broker.recv(16)[:1] in {b"+", b"-"} else down  # "-NOAUTH" is an answer too
    except OSError:
        return down


@functools.cache
def _sandbox() -> str:
    if settings.ENVIRONMENT.sandbox == "off":
        return "off"
    report = sandbox.report()
    return str(report) if not report.missing else f"lacks {', '.join(report.missing)}; has {report}"


def _row_security() -> str:
    return "absent (SQLite)" if connections["default"].vendor == "sqlite" else "absent (policies come later)"


def _swap() -> str:
    """Whether plaintext in memory could reach the disk."""
    try:
        lines = Path("/proc/swaps").read_text().splitlines()
    except OSError:
        return "possible"
    return "possible" if len(lines) > 1 else "none"


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "broker": _broker,
    "store": vault.store_health,
    "root_keys": vault.root_keys_health,
    "sandbox": _sandbox,
    "row_security": _row_security,
    "swap": _swap,
}

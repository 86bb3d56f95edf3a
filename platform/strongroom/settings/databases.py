"""PostgreSQL addresses to Django's dictionaries: role app by default, system for what has no tenant, owner migrates."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from strongroom.settings.environment import SettingInvalid


def postgresql(url: str, variable: str) -> dict[str, Any]:
    """`postgresql://user:password@host:port/name?option=value` as one entry of DATABASES."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise SettingInvalid(f"{variable} must be postgresql://user:password@host:5432/name")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.strip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"connect_timeout": 2, "prepare_threshold": None, **options},
        "DISABLE_SERVER_SIDE_CURSORS": True,  # pgbouncer's transaction pooling
    }

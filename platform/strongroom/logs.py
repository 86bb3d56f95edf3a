"""Log lines: text for people, JSON for machines. Secrets and tenants' content are never given to a logger."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`2026-11-24T22:40:00.123Z info strongroom.jobs  message  req_…`"""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname.lower()} {record.name}  {record.getMessage()}"
        if (request := request_id.get()) is not None:
            line += f"  {request}"
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One object a line: at, level, logger, message, request_id, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | None] = {"at": _moment(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage(), "request_id": request_id.get()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)

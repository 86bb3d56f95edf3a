"""What holds for every request that reaches Django: its id, the caller's address, no large body, no file, one log line.

Two context variables tell the rest: `logs.request_id` and `from_address`. The edge sets them for its own routes. Knows
nothing of principals and tenants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextvars import ContextVar
from ipaddress import ip_address
from time import perf_counter
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import Storage
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest, HttpResponseBase

from strongroom import ids, logs
from strongroom.errors import TooLarge
from strongroom.rest import problem

from_address: ContextVar[str | None] = ContextVar("from_address", default=None)
logger = logging.getLogger("strongroom.access_log")


class RequestMiddleware:
    """The outermost: request id in and out, address, body limit, access line (path without its query)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response
        self._trusted = frozenset(settings.ENVIRONMENT.listed("trusted_proxies"))

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = perf_counter()
        remote = request.META.get("REMOTE_ADDR")
        if remote not in self._trusted:  # a caller's word, not a proxy's; gone before `headers` is made
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        id = accepted_id(request.headers.get("X-Request-Id"))
        address = client_address(remote, request.headers.get("X-Forwarded-For"), self._trusted)
        id_token, address_token = logs.request_id.set(id), from_address.set(address)
        try:
            response = self._answer(request)
            response["X-Request-Id"] = id
            took_ms = (perf_counter() - began) * 1000
            logger.info("%s %s %d %.1f ms", request.method, ascii(request.path)[1:-1], response.status_code, took_ms)
        finally:
            logs.request_id.reset(id_token)
            from_address.reset(address_token)
        return response

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if _body_bytes(request) > limit:
            return problem.response(
                TooLarge(f"the body is over the limit of {limit} bytes", hint=f"at most {limit} bytes")
            )
        return self._get_response(request)


def accepted_id(given: str | None) -> str:
    """The caller's request id where it is well formed, else a new one."""
    return given if given and ids.parse("req", given) is not None else ids.fresh("req")


def client_address(remote: str | None, forwarded_for: str | None, trusted: Collection[str]) -> str | None:
    """Who called: the connection's address, or the nearest one that a trusted proxy names and that is none itself."""
    address = _address(remote)
    hops = [hop.strip() for hop in (forwarded_for or "").split(",") if hop.strip()]
    while address in trusted and hops:
        if (nearer := _address(hops.pop())) is None:
            break
        address = nearer
    return address


def _address(text: str | None) -> str | None:
    try:
        return str(ip_address(text or ""))
    except ValueError:
        return None


def _body_bytes(request: HttpRequest) -> int:
    """What Content-Length says, or what was read already (ASGI hands over a body of unknown length whole)."""
    try:
        told = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0
    stream = getattr(request, "_stream", None)
    if told == 0 and stream is not None and hasattr(stream, "seekable") and stream.seekable():
        told = stream.seek(0, 2)
        stream.seek(0)
    return told


class RefuseFiles(FileUploadHandler):
    """Django's form parser takes no file: tenants' bytes go to the raw upload route, sealed as they arrive."""

    def new_file(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise SuspiciousOperation("no file is taken here; PUT it to /api/v1/datasets/{name}/content")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        return None

    def file_complete(self, file_size: int) -> None:
        return None


class NoFiles(Storage):
    """Django's default storage, which nothing here uses: refuses to keep or open anything."""

    def exists(self, name: str) -> bool:
        return False

    def _open(self, name: str, mode: str = "rb") -> NoReturn:
        raise SuspiciousOperation("no file is kept by Django here")

    def _save(self, name: str, content: Any) -> NoReturn:
        raise SuspiciousOperation("no file is kept by Django here")

"""Every failure as an answer: RFC 9457 `application/problem+json`. One mapping, for DRF, Django and the edge.

Nothing of an unknown exception reaches the caller, and of its message nothing reaches the log, since it may hold
tenants' content: the log has its type and where it happened, the caller the request id.
"""

from __future__ import annotations

import difflib
import logging
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from django.core.exceptions import BadRequest, DisallowedHost, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from rest_framework import exceptions

from strongroom import logs
from strongroom.errors import (
    Conflict,
    Denied,
    FieldError,
    LimitReached,
    Malformed,
    NotFound,
    StrongroomError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

MEDIA_TYPE = "application/problem+json"
MAX_PROBLEMS = 50  # told at once: a body of a million unknown fields must not cost a minute
MAX_NAME = 100  # characters of a name that is compared and repeated
logger = logging.getLogger("strongroom.failures")


def document(error: StrongroomError, request_id: str | None) -> dict[str, Any]:
    """The body. `detail` repeats the first problem and its remedy; `errors` has one problem at least."""
    detail = error.detail
    if error.errors and (hint := error.errors[0].hint) and hint not in detail:
        detail = f"{detail}, {hint}"
    return {
        "type": f"/docs/errors#{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": detail,
        "request_id": request_id,
        "errors": [problem.as_dict() for problem in error.errors or (FieldError("", error.code, error.detail),)],
    }


def headers(error: StrongroomError) -> list[tuple[str, str]]:
    """What the status needs beside the body."""
    found = []
    if error.status == 401:
        found.append(("WWW-Authenticate", 'Bearer realm="strongroom"'))
    if error.retry_after_seconds is not None:
        found.append(("Retry-After", str(error.retry_after_seconds)))
    return found


def response(error: StrongroomError) -> HttpResponse:
    """The whole answer, for Django."""
    body = orjson.dumps(document(error, logs.request_id.get()))
    return HttpResponse(body, status=error.status, content_type=MEDIA_TYPE, headers=dict(headers(error)))


def handle(exception: Exception, context: dict[str, Any]) -> HttpResponse:
    """DRF's EXCEPTION_HANDLER."""
    from rest_framework.response import Response  # DRF loads this module while it loads itself

    error = from_exception(exception)
    if error.code == "internal":
        log_failure(exception)
    body = document(error, logs.request_id.get())
    return Response(body, status=error.status, content_type=MEDIA_TYPE, headers=dict(headers(error)))


def guarded(work: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    """What a middleware's `work` answers, or its failure as an answer: past a middleware Django makes pages of them."""
    try:
        return work()
    except Exception as exception:
        error = from_exception(exception)
        if error.code == "internal":
            log_failure(exception)
        return response(error)


def log_failure(exception: BaseException) -> None:
    """An exception that nobody expected: its type and its frames, without its message."""
    frames = "".join(traceback.format_tb(exception.__traceback__))
    logger.error("%s.%s\n%s", type(exception).__module__, type(exception).__qualname__, frames)


def from_exception(exception: BaseException) -> StrongroomError:
    """Any exception as one of ours; what is not known is `internal`."""
    if isinstance(exception, StrongroomError):
        return exception
    if isinstance(exception, exceptions.APIException):
        return _from_drf(exception)
    if isinstance(exception, OperationalError | InterfaceError):
        logger.warning("the database: %s", exception)  # of connections, locks and tables: no row is in its text
        return Unavailable("the database is unavailable; try again", code="database_unavailable")
    if isinstance(exception, Http404):
        return NotFound("there is nothing at this address; /docs lists the routes")
    if isinstance(exception, ProtectedError | RestrictedError):
        return Conflict("the object is in use; remove what uses it first")
    if isinstance(exception, RequestDataTooBig):
        return TooLarge("the body is too large to be taken here")
    if isinstance(exception, PermissionDenied):
        return Denied("this is not allowed", code="role_missing")
    if isinstance(exception, DisallowedHost):
        return Malformed(
            "the Host header names a host that is not served here",
            code="malformed_header",
            hint="the operator lists hosts in STRONGROOM_ALLOWED_HOSTS",
        )
    if isinstance(exception, SuspiciousOperation | BadRequest):
        return Malformed("the request cannot be read")
    return StrongroomError("something failed on our side; tell the operator the request id")


def _from_drf(exception: exceptions.APIException) -> StrongroomError:
    match exception:
        case exceptions.ParseError():
            return Malformed("the body is not well-formed JSON")
        case exceptions.MethodNotAllowed():
            return StrongroomError(str(exception.detail), code="method_not_allowed")
        case exceptions.UnsupportedMediaType():
            return Unsupported("the content type is not supported here", hint="application/json")
        case exceptions.NotFound():
            return NotFound("there is no such object")
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Unauthenticated("no API key was sent; send it as 'Authorization: Bearer sr_…'", code="key_missing")
        case exceptions.PermissionDenied():
            return Denied("this is not allowed", code="role_missing")
        case exceptions.Throttled():
            return LimitReached("too many requests", code="rate_limited")
    return StrongroomError("something failed on our side; tell the operator the request id")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The hint for a name that is not known: the nearest that is, else all of them."""
    names = sorted(known)
    if len(name) <= MAX_NAME and (close := difflib.get_close_matches(name, names, n=1, cutoff=0.6)):
        return f"did you mean '{close[0]}'?"
    return f"known are: {', '.join(names)}" if names else None


def is_api(request: HttpRequest) -> bool:
    """Whether the caller reads problem+json rather than a page."""
    return request.path_info.startswith("/api/")

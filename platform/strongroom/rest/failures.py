"""Django's own failures, for whoever asks: problem+json under /api, a plain line elsewhere. Never a traceback."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse

from strongroom import logs
from strongroom.errors import Denied, Malformed, NotFound, StrongroomError
from strongroom.rest import problem


def malformed(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, _ours(exception, Malformed("the request cannot be read")))


def denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, Denied("this is not allowed", code="role_missing"))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, NotFound("there is nothing at this address"))


def internal(request: HttpRequest) -> HttpResponse:
    exception = sys.exc_info()[1]
    error = problem.from_exception(exception or RuntimeError())
    if exception is not None and error.code == "internal":
        problem.log_failure(exception)
    return _answer(request, error)


def _ours(exception: Exception, otherwise: StrongroomError) -> StrongroomError:
    """A form's file and an over-long form have messages of ours; other exceptions may repeat what was sent."""
    found = problem.from_exception(exception)
    return otherwise if found.code == "internal" else found


def _answer(request: HttpRequest, error: StrongroomError) -> HttpResponse:
    if problem.is_api(request):
        return problem.response(error)
    text = f"{error.status} {error.title}\n{error.detail}\n"
    if request_id := logs.request_id.get():
        text += f"Request id: {request_id}\n"
    return HttpResponse(
        text, status=error.status, content_type="text/plain; charset=utf-8", headers=dict(problem.headers(error))
    )

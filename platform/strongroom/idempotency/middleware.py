"""`Idempotency-Key` on the native API's views: a repeat gets the first answer again, nothing is done twice.

A view says `idempotent = True`, one whose answer holds a secret `idempotent = "secret"`. Stands between who asks and
the scope (access/middleware.py): the key is taken before the work's transaction and the answer is kept in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from strongroom.idempotency.services import HEADER, Kept, Taken, begin, fingerprint
from strongroom.rest import problem


class IdempotencyMiddleware:
    """Runs in the thread of the view."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> HttpResponseBase:
        kind = getattr(getattr(request, "view", None), "idempotent", False)
        if not kind or request.method != "POST" or HEADER not in request.headers:
            return self._get_response(request)
        return problem.guarded(lambda: self._once(request, has_secret=kind == "secret"))

    def _once(self, request: Any, *, has_secret: bool) -> HttpResponseBase:
        principal, mark = request.principal, fingerprint("POST", request.get_full_path(), request.body)
        found = begin(principal.tenant_id, principal.id, request.path, request.headers[HEADER], mark)
        if isinstance(found, Kept):
            return _again(found)
        return self._first(request, found, has_secret=has_secret)

    def _first(self, request: Any, taken: Taken, *, has_secret: bool) -> HttpResponseBase:
        def keep(response: Any) -> None:
            taken.finish(response.status_code, response.headers, None if has_secret else response.content)

        request.before_commit = keep
        try:
            response = self._get_response(request)
        except BaseException:
            taken.release()
            raise
        if response.status_code >= 400:
            taken.release()
        return response


def _again(kept: Kept) -> HttpResponse:
    response = HttpResponse(kept.body, status=kept.status)
    for name, value in kept.headers.items():
        response[name] = value
    response["Idempotency-Replayed"] = "true"
    return response

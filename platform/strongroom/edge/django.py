"""Django behind the guard of bodies: what the edge has no route for. Tenants' bytes never pass it.

Django answers in a few threads that stay (rest/serving.py), where a body is held in memory. So one that goes to Django
ends at 2 MiB: told by Content-Length it is refused at once, otherwise as soon as it grows over.
"""

from __future__ import annotations

from contextlib import nullcontext
from time import perf_counter
from uuid import UUID

from django.conf import settings

from strongroom.edge import http
from strongroom.edge.access_log import LOG
from strongroom.edge.limits import Places
from strongroom.errors import LimitReached, TooLarge
from strongroom.rest.serving import DjangoInThreads

MAX_BODY_BYTES: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
LARGE, ANYBODY = Places("large bodies", of_all=64, of_one=64), UUID(int=0)

_django = DjangoInThreads()


async def to_django(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
    """Lets Django answer, or refuses the body."""
    request = http.Request(scope, receive)
    try:
        request.check_length(MAX_BODY_BYTES)
        # Read before anybody is asked who they are; nothing that Django takes is usually that large.
        with LARGE.taken(ANYBODY) if request.is_large else nullcontext():
            await _django(scope, _counted(receive), send)
    except (TooLarge, LimitReached) as error:
        await http.failure(error, request).send(send, request)
        LOG.add(request.method, request.path, error.status, perf_counter() - request.began, request.id)


def _counted(receive: http.Receive) -> http.Receive:
    passed = 0

    async def counted() -> http.Message:
        nonlocal passed
        message = await receive()
        passed += len(message.get("body", b""))
        if passed > MAX_BODY_BYTES:
            raise http.too_large(MAX_BODY_BYTES)
        return message

    return counted

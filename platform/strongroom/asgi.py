"""The one ASGI application: edge routes first (edge/routes.py), Django for the rest. Tenants' bytes never pass Django.

Django answers in a few threads that stay (rest/serving.py), where a body is held in memory. So one that goes to Django
ends at 2 MiB: told by Content-Length it is refused at once, otherwise as soon as it grows over.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from uuid import UUID

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")

import django  # the settings' name comes first

django.setup(set_prefix=False)  # the rooms' models need it: hence the imports below

from strongroom.edge import http, routes, watch  # noqa: E402
from strongroom.edge.background import Background  # noqa: E402
from strongroom.edge.limits import Places  # noqa: E402
from strongroom.errors import LimitReached, StrongroomError, TooLarge  # noqa: E402
from strongroom.rest.serving import DjangoInThreads  # noqa: E402

MAX_BODY_BYTES = 2 * 1024 * 1024
LARGE, ANYBODY = Places("large bodies", of_all=64, of_one=64), UUID(int=0)

_django = DjangoInThreads()
_background = Background()


async def application(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
    """Dispatches one connection's scope."""
    if scope["type"] == "http":
        if await routes.answer(scope, receive, send):
            return
        if http.Request(scope, receive).wait_seconds is not None:
            await watch.hold(to_django, scope, receive, send)
        else:
            await to_django(scope, receive, send)
    elif scope["type"] == "lifespan":
        await _background.lifespan(receive, send)


async def to_django(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
    """Django behind the guard of bodies."""
    request = http.Request(scope, receive)
    try:
        request.check_length(MAX_BODY_BYTES)
        # Read before anybody is asked who they are; nothing that Django takes is usually that large.
        with LARGE.taken(ANYBODY) if request.is_large else nullcontext():
            await _django(scope, _counted(receive), send)
    except (TooLarge, LimitReached) as error:
        await _refuse(error, scope, receive, send)


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


async def _refuse(error: StrongroomError, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
    request = http.Request(scope, receive)
    await http.failure(error, request).send(send, request)
    routes.log(request, error.status)

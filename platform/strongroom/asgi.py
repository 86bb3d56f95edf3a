"""The one ASGI application: edge routes first (edge/routes.py), Django for the rest (edge/django.py)."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")

import django  # the settings' name comes first

django.setup(set_prefix=False)  # the rooms' models need it: hence the imports below

from strongroom.edge import http, routes, waiting  # noqa: E402
from strongroom.edge.background import Background  # noqa: E402
from strongroom.edge.django import to_django  # noqa: E402

_background = Background()


async def application(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
    """Dispatches one connection's scope."""
    if scope["type"] == "http":
        if await routes.answer(scope, receive, send):
            return
        if http.Request(scope, receive).wait_seconds is not None:
            await waiting.hold(scope, receive, send)
        else:
            await to_django(scope, receive, send)
    elif scope["type"] == "lifespan":
        await _background.lifespan(receive, send)

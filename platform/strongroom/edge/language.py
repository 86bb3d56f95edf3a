"""speak(): one use of a language model, whatever face asked for it: let in as core.py's predictions are, then heard,
counted and paid for as deployments/speech.py does it for all who ask. Knows no documents of a face.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from inference.language.requests import Generate
from strongroom.access.services import Principal
from strongroom.deployments.served import Served
from strongroom.deployments.speech import Speaker, Speech
from strongroom.edge import core, database, http
from strongroom.metering.services import LEASES, LIMITS

T = TypeVar("T")
SPEAKER = Speaker(core.ENGINES, LIMITS, LEASES, database.run)


async def speak(
    principal: Principal,
    name: str,
    read: Callable[[Served], Sequence[Generate]],
    *,
    stream: bool,
    scope: str = "",
) -> Speech:
    """As Speaker.speak, of the deployment `name`."""
    return await SPEAKER.speak(await core.admit(principal, name), read, stream=stream, scope=scope)


async def while_there(request: http.Request, work: Awaitable[T]) -> T:
    """The work's result; Disconnected as soon as the caller goes away: then the work is cancelled, here."""
    task, has_left = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal has_left
        await request.gone()
        has_left = True
        if task is not None:
            task.cancel()

    watching = asyncio.create_task(watch(), name="the caller is there")
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and task is not None and not task.uncancel():
            raise http.Disconnected from None
        raise
    finally:
        watching.cancel()

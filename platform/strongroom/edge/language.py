"""speak(): one use of a language model, whatever face asked for it: let in as core.py's predictions are, then heard,
counted and paid for as deployments/speech.py does it for all who ask. Knows no documents of a face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inference.language.requests import Generate
from strongroom.access.services import Principal
from strongroom.deployments.served import Served
from strongroom.deployments.speech import Speaker, Speech
from strongroom.edge import core, database
from strongroom.metering.services import LEASES, LIMITS

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

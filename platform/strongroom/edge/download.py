"""What a tenant may have back, on its way out: opened segment by segment, sent as it is opened, in flat memory.

A web process has no key that opens anything: the node's agent hands over the data key of one artefact, for this tenant
and of the kinds that are handed back (an output, a batch's input; deployments/rows.py). Knows no routes and no rights.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import orjson

from sealing import Identity, SealReader
from strongroom.deployments.targets import OPEN_SOCKET
from strongroom.edge import core, http
from strongroom.errors import Gone, Unavailable
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

PIECE_BYTES = 1 << 20
KEY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sealed:
    """An artefact as it lies in the store, open; the key is asked for separately."""

    identity: Identity
    stored_bytes: int
    file: io.FileIO  # closes itself where nobody takes it: its caller may have given up before it was there

    def reader(self, header_tag: bytes, data_key: bytes) -> SealReader:
        return SealReader(
            self.file.fileno(), data_key, self.identity, header_tag=header_tag, stored_bytes=self.stored_bytes
        )


def sealed(artefact: Artefact) -> Sealed:
    """Blocks, in the tenant's scope; `stream` closes it."""
    identity = Identity(artefact.tenant_id, artefact.id, artefact.kind)
    return Sealed(identity, artefact.stored_bytes, io.FileIO(vault.sealed_descriptor(artefact)))


async def stream(sealed: Sealed, media_type: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> http.Stream:
    """All of it. Gone, Unavailable."""
    try:
        header_tag, data_key = await _opened_by_agent(sealed.identity)
        reader = await asyncio.to_thread(sealed.reader, header_tag, data_key)
    except BaseException:
        sealed.file.close()
        raise
    length = (b"content-length", b"%d" % reader.size_bytes)
    return http.Stream(_pieces(sealed, reader), media_type, [length, *headers])


async def _opened_by_agent(of: Identity) -> tuple[bytes, bytes]:
    """Header tag and data key, from the node's agent, which asks the vault. Gone, Unavailable."""
    core.ENGINES.targets.look(now=True)
    if (folder := core.ENGINES.targets.folder) is None:
        raise _no_agent()
    question = {"type": "open", "artefact": str(of.artefact), "tenant": str(of.tenant)}
    try:
        async with asyncio.timeout(KEY_SECONDS):
            reader, writer = await asyncio.open_unix_connection(folder / OPEN_SOCKET)
            try:
                writer.write(orjson.dumps(question) + b"\n")
                answer = orjson.loads(await reader.readline())
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError) as error:
        raise _no_agent() from error
    if answer.get("type") == "key":
        return base64.b64decode(answer["header_tag"]), base64.b64decode(answer["data_key"])
    if answer.get("code") == "not_found":
        raise Gone("the content has expired")
    raise Unavailable("the key of the content cannot be had now; try again", code="keys_unavailable")


def _no_agent() -> Unavailable:
    return Unavailable("the node's agent does not answer; try again", code="keys_unavailable")


async def _pieces(sealed: Sealed, reader: SealReader) -> AsyncGenerator[bytes]:
    try:
        for offset in range(0, reader.size_bytes, PIECE_BYTES):
            length = min(PIECE_BYTES, reader.size_bytes - offset)
            reading = asyncio.create_task(asyncio.to_thread(reader.read, offset, length))
            try:
                yield bytes(await asyncio.shield(reading))
            finally:  # the thread may still read: the file stays open until then
                await asyncio.wait([reading])
    finally:
        sealed.file.close()

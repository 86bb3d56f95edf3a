"""A sealed language model → one that answers: decrypted into a sealed memfd of this process, mapped from there.

No path and no open: llama.cpp reads from the descriptor. Deployments of one base share its engine, each with its own
adapter or none, so that an adapter comes and goes without the base. Runs in a thread of the cell.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final, cast
from uuid import UUID

from inference.errors import LoadFailed, ModelCorrupt
from inference.language.base_model import Base, Room
from inference.language.interface import LanguageInterface
from inference.language.llama import Weights
from inference.language.serving import LanguageModel
from inference.loading import BaseOrder, LoadOrder, Place
from sealing import ArtefactCorrupt, Identity, SealReader

MOST_SLOTS: Final = 64
LEAST_CELLS: Final = 512
KV_PART: Final = 4  # keys and values take a quarter of the cell's memory at most
# Nothing of it can be written, grown or shrunk any more by anybody, nor can that be taken back.
SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def load(order: LoadOrder, descriptors: list[int], place: Place) -> LanguageModel:
    """LoadFailed, ModelCorrupt."""
    interface = cast(LanguageInterface, order.interface)
    with place.loads_base:
        base = _base(order, descriptors[-1], place)
    try:
        adapter = ""
        if order.base is not None:
            adapter = order.version
            _attach(base, order, descriptors[0])
        return LanguageModel(order.deployment, order.version, base, interface, adapter=adapter)
    except BaseException:
        base.leave()
        raise


def _base(order: LoadOrder, descriptor: int, place: Place) -> Base:
    """The base that the order needs: one that is here already, or a new one."""
    version = order.version if order.base is None else order.base.version
    key = (version, order.share, order.max_batch, order.context_tokens)
    found: Base | None = place.bases.get(key)
    if found is not None and found.enter():
        return found
    plain = decrypted(order if order.base is None else order.base, descriptor)
    try:
        weights = Weights(plain, share=order.share)
    finally:
        os.close(plain)  # the mapping stays
    room = room_of(weights, order.max_batch, order.context_tokens, place)
    try:
        made = Base(weights, room, place.loop, on_end=lambda: _forget(place, key, made))
    except BaseException:
        weights.free()
        raise
    place.bases[key] = made
    return made


def _forget(place: Place, key: object, ended: Base) -> None:
    """By then another of the key may be there."""
    if place.bases.get(key) is ended:
        del place.bases[key]


def _attach(base: Base, order: LoadOrder, descriptor: int) -> None:
    plain = decrypted(order, descriptor)
    try:
        base.attach(order.version, plain)
    finally:
        os.close(plain)


def decrypted(order: LoadOrder | BaseOrder, descriptor: int) -> int:
    """A sealed memfd with the plaintext; one that was given by another cell only where nobody can write it."""
    if order.plain:
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS != SEALS:
            raise LoadFailed("the shared weights could still be changed")
        return os.dup(descriptor)
    identity = Identity(UUID(order.tenant), UUID(order.artefact), "model")
    memory = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        key = cast(bytes, order.key)  # as in inference.loading
        reader = SealReader(descriptor, key, identity, header_tag=order.header_tag, stored_bytes=order.stored_bytes)
        os.ftruncate(memory, reader.size_bytes)
        reader.copy_to(memory, workers=2)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
    except ArtefactCorrupt:
        os.close(memory)
        raise ModelCorrupt(
            "the sealed model does not open: its file, its key or its row is not the right one"
        ) from None
    except (OSError, ValueError, MemoryError) as error:
        os.close(memory)
        raise LoadFailed(f"the sealed model was not read ({type(error).__name__})") from None
    return memory


def room_of(weights: Weights, max_batch: int, context_tokens: int | None, place: Place) -> Room:
    """Slots and cells: as many tokens as the model looks back on, unless the deployment says or memory is short."""
    most = place.memory_bytes // KV_PART // max(1, weights.kv_bytes_a_token)
    wanted = context_tokens or weights.context_length
    cells = max(LEAST_CELLS, min(wanted, most) // 256 * 256)
    return Room(slots=max(1, min(max_batch, MOST_SLOTS)), cells=cells, threads=place.language_threads)

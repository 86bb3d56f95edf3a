"""A load frame → a model that answers: the sealed file opened with its data key, decrypted into this process's memory.

The key is wiped and the descriptor closed as soon as the plaintext is there. Runs in a thread of the cell beside the
one that computes. Knows the frame's fields (docs/formats/processes.md), sealing and the engine; nothing of queues.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

import orjson

from inference import bundle
from inference.engine import OnnxEngine
from inference.errors import LoadFailed, ModelCorrupt, ProtocolError
from inference.interface import Interface, read_interface
from inference.protocol import Frame
from inference.requests import Model
from inference.signature import Signature, SignatureInvalid
from sealing import ArtefactCorrupt, Identity, SealReader

KEY_BYTES: Final = 32
SIGNATURE_OFFSET: Final = 64


@dataclass(slots=True)
class BaseOrder:
    """The base of an adapter: the version whose weights it changes, and where they lie."""

    version: str
    tenant: str
    artefact: str
    header_tag: bytes
    stored_bytes: int
    key: bytearray
    plain: bool = False  # the descriptor is a sealed memfd of the plaintext, given by another cell

    @classmethod
    def read(cls, fields: Mapping[str, Any], key: bytes) -> BaseOrder:
        return cls(
            version=str(fields["version"]),
            tenant=str(UUID(fields["tenant"])),
            artefact=str(UUID(fields["artefact"])),
            header_tag=bytes(fields["header_tag"]),
            stored_bytes=int(fields["stored_bytes"]),
            key=bytearray(key),
            plain=bool(fields.get("plain")),
        )


@dataclass(slots=True)
class LoadOrder:
    """What a load frame says; keys are wiped by forget()."""

    deployment: str
    version: str
    for_tenant: str  # whose cell it is
    tenant: str  # whose artefact it is: another's where the model is public
    artefact: str
    header_tag: bytes
    stored_bytes: int
    max_batch: int
    context_tokens: int | None
    share: bool
    interface: Interface
    key: bytearray
    base: BaseOrder | None = None
    plain: bool = False

    @classmethod
    def read(cls, frame: Frame) -> LoadOrder:
        """Body: the data key, the base's data key or zero bytes, the interface's JSON."""
        fields = frame.fields()
        batching, base = fields.get("batching") or {}, fields.get("base")
        try:
            interface = read_interface(orjson.loads(frame.body[SIGNATURE_OFFSET:]))
            context_tokens = batching.get("context_tokens")
            return cls(
                deployment=str(fields["deployment"]),
                version=str(fields["version"]),
                for_tenant=str(UUID(fields.get("for_tenant") or fields["tenant"])),
                tenant=str(UUID(fields["tenant"])),
                artefact=str(UUID(fields["artefact"])),
                header_tag=bytes(fields["header_tag"]),
                stored_bytes=int(fields["stored_bytes"]),
                max_batch=max(1, int(batching.get("max_batch", 64))),
                context_tokens=None if context_tokens is None else int(context_tokens),
                share=bool(fields.get("share")),
                interface=interface,
                key=bytearray(frame.body[:KEY_BYTES]),
                plain=bool(fields.get("plain")),
                base=None if base is None else BaseOrder.read(base, bytes(frame.body[KEY_BYTES:SIGNATURE_OFFSET])),
            )
        except SignatureInvalid as error:
            raise LoadFailed(f"the signature is not valid: {error}") from None
        except (KeyError, ValueError, TypeError) as error:
            raise ProtocolError(f"a load frame without its fields ({type(error).__name__})") from None

    def forget(self) -> None:
        self.key[:] = bytes(len(self.key))
        if self.base is not None:
            self.base.key[:] = bytes(len(self.base.key))


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is loaded: the cell's event loop, threads and memory, and the language models' bases that it has.

    Loads run in threads side by side; under `loads_base` no base is loaded twice.
    """

    loop: Any
    threads: int
    language_threads: int
    memory_bytes: int
    bases: dict[Any, Any] = field(default_factory=dict)
    loads_base: threading.Lock = field(default_factory=threading.Lock)


def load(order: LoadOrder, descriptors: list[int], place: Place) -> tuple[Any, float]:
    """The loaded model, warmed up, and the seconds that it took. Keys are wiped and descriptors closed either way."""
    started = time.monotonic()
    try:
        if isinstance(order.interface, Signature):
            return _arrays(order, descriptors[0], place), time.monotonic() - started
        return _language(order, descriptors, place), time.monotonic() - started
    finally:
        order.forget()
        for descriptor in descriptors:
            os.close(descriptor)


def _arrays(order: LoadOrder, descriptor: int, place: Place) -> Model:
    parts = _decrypted(order, descriptor)
    signature = cast(Signature, order.interface)
    threads = place.threads if parts.tokenizer is None else place.language_threads
    engine = OnnxEngine(parts.graph, signature, threads=threads, weights=parts.weights)
    engine.warm_up()
    model = Model(order.deployment, order.version, engine, order.max_batch)
    if parts.tokenizer is not None and parts.card is not None:
        # Imported here, since only an encoder needs it.
        from inference.language.embedding import TextEncoder
        from inference.language.encoding import Encoding

        model.encoding = Encoding(TextEncoder(engine, parts.tokenizer, parts.card), place.loop)
    return model


def _language(order: LoadOrder, descriptors: list[int], place: Place) -> Any:
    try:
        from inference.language import loading  # the extra `language` may not be installed
    except ImportError:
        raise LoadFailed("this node has no language engine: install the extra `language` (make language)") from None
    return loading.load(order, descriptors, place)


def _decrypted(order: LoadOrder, descriptor: int) -> bundle.Parts:
    identity = Identity(UUID(order.tenant), UUID(order.artefact), "model")
    try:
        # The key stays a bytearray, so that it can be wiped; the reader derives from it and keeps none of it.
        key = cast(bytes, order.key)
        reader = SealReader(descriptor, key, identity, header_tag=order.header_tag, stored_bytes=order.stored_bytes)
        return bundle.read(reader)
    except ArtefactCorrupt:
        raise ModelCorrupt(
            "the sealed model does not open: its file, its key or its row is not the right one"
        ) from None
    except (OSError, MemoryError) as error:
        raise LoadFailed(f"the sealed model was not read ({type(error).__name__})") from None

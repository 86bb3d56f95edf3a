"""A load frame → a session: the sealed file is opened with its data key, decrypted into this process's own memory.

The key is wiped and the descriptor closed as soon as the plaintext is there. Runs in a thread of the cell beside the
one that computes. Knows the frame's fields (docs/formats/processes.md), sealing and the engine; nothing of queues.
"""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

import orjson

from inference.engine import MAX_MODEL_BYTES, OnnxEngine
from inference.errors import LoadFailed, ModelCorrupt, ProtocolError
from inference.protocol import Frame
from inference.signature import Signature, SignatureInvalid
from sealing import ArtefactCorrupt, Identity, SealReader

KEY_BYTES: Final = 32
SIGNATURE_OFFSET: Final = 64
TWO_WORKERS_FROM_BYTES: Final = 8 << 20


@dataclass(slots=True)
class LoadOrder:
    """What a load frame says; `key` is wiped by forget()."""

    deployment: str
    version: str
    tenant: str
    artefact: str
    header_tag: bytes
    stored_bytes: int
    max_batch: int
    signature: Signature
    key: bytearray

    @classmethod
    def read(cls, frame: Frame) -> LoadOrder:
        """Body: the data key, 32 zero bytes, the signature's JSON."""
        fields = frame.fields()
        batching = fields.get("batching") or {}
        try:
            signature = Signature.from_json(orjson.loads(frame.body[SIGNATURE_OFFSET:]))
            return cls(
                deployment=str(fields["deployment"]),
                version=str(fields["version"]),
                tenant=str(UUID(fields["tenant"])),
                artefact=str(UUID(fields["artefact"])),
                header_tag=bytes(fields["header_tag"]),
                stored_bytes=int(fields["stored_bytes"]),
                max_batch=max(1, int(batching.get("max_batch", 64))),
                signature=signature,
                key=bytearray(frame.body[:KEY_BYTES]),
            )
        except SignatureInvalid as error:
            raise LoadFailed(f"the signature is not valid: {error}") from None
        except (KeyError, ValueError, TypeError) as error:
            raise ProtocolError(f"a load frame without its fields ({type(error).__name__})") from None

    def forget(self) -> None:
        self.key[:] = bytes(len(self.key))


def load(order: LoadOrder, descriptor: int, threads: int) -> tuple[OnnxEngine, float]:
    """The engine, warmed up, and the seconds that it took."""
    started = time.monotonic()
    try:
        model = _decrypted(order, descriptor)
    finally:
        order.forget()
        os.close(descriptor)
    engine = OnnxEngine(model, order.signature, threads=threads)
    del model
    engine.warm_up()
    return engine, time.monotonic() - started


def _decrypted(order: LoadOrder, descriptor: int) -> bytes:
    """BytesIO's buffer becomes the bytes that ONNX Runtime wants, without a copy of the model in between."""
    identity = Identity(UUID(order.tenant), UUID(order.artefact), "model")
    try:
        # The key stays a bytearray, so that it can be wiped; the reader derives from it and keeps none of it.
        key = cast(bytes, order.key)
        reader = SealReader(descriptor, key, identity, header_tag=order.header_tag, stored_bytes=order.stored_bytes)
        size = reader.size_bytes
        if not 0 < size <= MAX_MODEL_BYTES:
            raise LoadFailed(f"the model has {size} bytes; 1 to {MAX_MODEL_BYTES} are served")
        store = io.BytesIO()
        store.seek(size - 1)
        store.write(b"\0")
        with store.getbuffer() as plain:
            reader.readinto(plain, workers=2 if size >= TWO_WORKERS_FROM_BYTES else 1)
        return store.getvalue()
    except ArtefactCorrupt:
        raise ModelCorrupt(
            "the sealed model does not open: its file, its key or its row is not the right one"
        ) from None
    except (OSError, MemoryError) as error:
        raise LoadFailed(f"the sealed model was not read ({type(error).__name__})") from None

"""The keys and the cipher of one stream: what is derived from a data key, and AES-256-GCM over numbered segments.

Knows how the derivations of docs/formats/artefact.md are made, and no offset, file or buffer.
"""

import hmac
import os
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealing.layout import GCM_TAG_BYTES, STREAM_HEADER_BYTES, Identity

_SALT = slice(1, 33)
_NONCE_PREFIX = slice(33, 40)


def new_data_key() -> bytes:
    """One per sealing: never used for a second stream, nor again after a failed write."""
    return os.urandom(32)


def new_stream_header() -> bytes:
    return bytes([STREAM_HEADER_BYTES]) + os.urandom(STREAM_HEADER_BYTES - 1)


def derive(data_key: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(data_key)


def tag_of(data_key: bytes, identity_header: bytes, stream_header: bytes) -> bytes:
    """Commits to the key, the identity and this one stream. AES-GCM alone opens under two keys what was made to."""
    key = derive(data_key, None, b"strongroom header tag 1")
    return hmac.digest(key, identity_header + stream_header, "sha256")


class Cipher:
    """AES-256-GCM over the numbered segments of one stream; threads share it."""

    def __init__(self, data_key: bytes, identity_header: bytes, stream_header: bytes) -> None:
        self._prefix = stream_header[_NONCE_PREFIX]
        self._aead = AESGCM(derive(data_key, stream_header[_SALT], identity_header))

    def _nonce(self, index: int, last: bool) -> bytes:
        return self._prefix + struct.pack(">I?", index, last)

    def seal(self, index: int, last: bool, plain: memoryview, out: memoryview) -> memoryview:
        sealed = out[: len(plain) + GCM_TAG_BYTES]
        self._aead.encrypt_into(self._nonce(index, last), plain, None, sealed)
        return sealed

    def open(self, index: int, last: bool, sealed: memoryview, out: memoryview) -> None:
        self._aead.decrypt_into(self._nonce(index, last), sealed, None, out)


class Head:
    """The 136 bytes that open a new artefact, and the cipher of what follows them."""

    def __init__(self, data_key: bytes, identity: Identity, segment_log2: int) -> None:
        if len(data_key) != 32:
            raise ValueError("a data key has 32 bytes")
        header, stream_header = identity.header(segment_log2), new_stream_header()
        self.tag = tag_of(data_key, header, stream_header)
        self.bytes = header + self.tag + stream_header
        self.cipher = Cipher(data_key, header, stream_header)

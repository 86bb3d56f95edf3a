"""An independent reader and writer of sealed artefacts: docs/formats/artefact.md, the standard library and Tink.

Uses no code of ours, so that the page and not the implementation decides.
"""

import hashlib
import hmac
import io
from uuid import UUID

from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

streaming_aead.register()


def hkdf(key: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 without salt, 32 bytes: one round of RFC 5869."""
    extracted = hmac.digest(bytes(32), key, hashlib.sha256)
    return hmac.digest(extracted, info + b"\1", hashlib.sha256)


def identity(log2: int, tenant: UUID, artefact: UUID, kind: str) -> bytes:
    fixed = b"STRGROOM" + bytes([1, 1, log2, 0, 0, 0, 0, 0])
    return fixed + kind.encode().ljust(16, b"\0") + tenant.bytes + artefact.bytes


def header_tag(key: bytes, header: bytes, tink_header: bytes) -> bytes:
    return hmac.digest(hkdf(key, b"strongroom header tag 1"), header + tink_header, hashlib.sha256)


def tink_stream(key: bytes, log2: int) -> streaming_aead.StreamingAead:
    parameters = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=1 << log2, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    value = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(version=0, key_value=key, params=parameters)
    data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=value.SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    entry = tink_pb2.Keyset.Key(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW, key_data=data)
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry]).SerializeToString()
    return proto_keyset_format.parse(keyset, secret_key_access.TOKEN).primitive(streaming_aead.StreamingAead)


def open_stream(key: bytes, log2: int, header: bytes, stream: bytes) -> bytes:
    with tink_stream(key, log2).new_decrypting_stream(io.BytesIO(stream), header) as plain:
        return plain.read()


def read(stored: bytes, key: bytes, tenant: UUID, artefact: UUID, kind: str) -> bytes:
    log2 = stored[10]
    assert len(stored) >= 152
    assert 16 <= log2 <= 22
    assert stored[:64] == identity(log2, tenant, artefact, kind)
    assert stored[96] == 40
    assert hmac.compare_digest(stored[64:96], header_tag(key, stored[:64], stored[96:136]))
    stream_bytes = len(stored) - 96
    assert stream_bytes <= 1 << log2 or not 0 < stream_bytes % (1 << log2) <= 16
    return open_stream(key, log2, stored[:64], stored[96:])


class _Kept(io.BytesIO):
    def close(self) -> None:
        """Tink closes what it writes to; its bytes are wanted afterwards."""


def write(plain: bytes, key: bytes, log2: int, tenant: UUID, artefact: UUID, kind: str) -> bytes:
    header, kept = identity(log2, tenant, artefact, kind), _Kept()
    with tink_stream(key, log2).new_encrypting_stream(kept, header) as sealing:
        sealing.write(plain)
    stream = kept.getvalue()
    return header + header_tag(key, header, stream[:40]) + stream

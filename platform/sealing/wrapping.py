"""Data keys sealed to a tenant's public key and opened with its private one: HPKE base mode (RFC 9180), hybrid.

Whoever has the public half can seal; nobody without the private half can open. ML-KEM-768 beside X25519, because what
is stored today must stand for decades. Does not know where the keys lie or who wraps the private half.
"""

from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from sealing.errors import WrongKey

DATA_KEY_BYTES = 32
WRAPPED_BYTES = 1168  # enc (1,120), ciphertext (32), tag (16)
PUBLIC_BYTES = 1184 + 32  # ML-KEM-768, then X25519
PRIVATE_BYTES = 64 + 32  # ML-KEM's seed, then X25519

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class TenantKeyPair:
    private: bytes = field(repr=False)
    public: bytes


def generate_tenant_key() -> TenantKeyPair:
    post_quantum, classic = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    return TenantKeyPair(
        private=post_quantum.private_bytes_raw() + classic.private_bytes_raw(),
        public=post_quantum.public_key().public_bytes_raw() + classic.public_key().public_bytes_raw(),
    )


def wrap_data_key(public_key: bytes, data_key: bytes, *, tenant: UUID, artefact: UUID, generation: int) -> bytes:
    if len(data_key) != DATA_KEY_BYTES:
        raise ValueError("a data key has 32 bytes")
    if len(public_key) != PUBLIC_BYTES:
        raise ValueError("a tenant's public key has 1,216 bytes")
    key = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public_key[:1184]), X25519PublicKey.from_public_bytes(public_key[1184:])
    )
    return _SUITE.encrypt(data_key, key, info=_info(tenant, artefact, generation))


def unwrap_data_key(private_key: bytes, wrapped: bytes, *, tenant: UUID, artefact: UUID, generation: int) -> bytes:
    if len(private_key) != PRIVATE_BYTES:
        raise ValueError("a tenant's private key has 96 bytes")
    key = MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(private_key[:64]), X25519PrivateKey.from_private_bytes(private_key[64:])
    )
    try:
        data_key = _SUITE.decrypt(wrapped, key, info=_info(tenant, artefact, generation))
    except (InvalidTag, ValueError):  # ValueError: an X25519 point of low order
        raise WrongKey(artefact) from None
    if len(data_key) != DATA_KEY_BYTES:
        raise WrongKey(artefact)
    return data_key


def _info(tenant: UUID, artefact: UUID, generation: int) -> bytes:
    return b"strongroom data key 1" + tenant.bytes + artefact.bytes + generation.to_bytes(4, "big")

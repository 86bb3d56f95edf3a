"""Sealed artefacts: what every stored byte of a tenant's data looks like (docs/formats/artefact.md), and its door.

Knows the bytes, the keys of one artefact and a tenant's key pair. Knows no database, no storage, no Django and no
key management service: callers bring descriptors, keys and what they expect to find.
"""

from sealing.cipher import new_data_key
from sealing.errors import ArtefactCorrupt, SealingError, WrongKey
from sealing.layout import HEAD_BYTES, Identity, Segments
from sealing.stream import SealReader, SealWriter, inspect, seal_memory
from sealing.wrapping import WRAPPED_BYTES, TenantKeyPair, generate_tenant_key, unwrap_data_key, wrap_data_key

__all__ = [
    "HEAD_BYTES",
    "WRAPPED_BYTES",
    "ArtefactCorrupt",
    "Identity",
    "SealReader",
    "SealWriter",
    "SealingError",
    "Segments",
    "TenantKeyPair",
    "WrongKey",
    "generate_tenant_key",
    "inspect",
    "new_data_key",
    "seal_memory",
    "unwrap_data_key",
    "wrap_data_key",
]

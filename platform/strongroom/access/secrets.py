"""An API key's text: `sr_` + look-up id + `_` + 256 random bits + checksum. Knows no database.

The checksum lets a typo be named, and a secret scanner be sure, without a look-up. What is stored is the SHA-256 of the
whole: 256 random bits need no slow hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from strongroom.ids import ALPHABET, base32

_FORM = re.compile(f"(sr_[{ALPHABET}]{{10}}_[{ALPHABET}]{{52}})([{ALPHABET}]{{6}})")
PREFIX_LENGTH = 13  # `sr_` and the ten characters of the look-up id


def new() -> str:
    """A fresh secret, from the system's generator."""
    body = f"sr_{base32(secrets.randbits(50), 10)}_{base32(secrets.randbits(256), 52)}"
    return body + checksum(body)


def checksum(body: str) -> str:
    """The first 30 bits of SHA-256 of what precedes, as 6 characters."""
    return base32(int.from_bytes(hashlib.sha256(body.encode()).digest()[:4]) >> 2, 6)


def well_formed(secret: str) -> bool:
    """Whether the text has the form of a key and its checksum is right."""
    parts = _FORM.fullmatch(secret)
    return parts is not None and checksum(parts[1]) == parts[2]


def prefix(secret: str) -> str:
    """What may be shown: `sr_4fq2k7m9xd`."""
    return secret[:PREFIX_LENGTH]


def digest(secret: str) -> bytes:
    """What is stored and looked up."""
    return hashlib.sha256(secret.encode()).digest()

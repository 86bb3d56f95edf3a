"""Identifiers as callers see them: prefix, `_`, 26 characters of lower-case Crockford base32 of a UUIDv7.

The database holds the UUID; the prefix is cut off at the border. Parsing is strict: one text per id.
"""

from __future__ import annotations

import itertools
from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {character: value for value, character in enumerate(ALPHABET)}
PREFIXES = frozenset(
    {"job", "ds", "ver", "dep", "key", "pred", "mem", "req", "art", "ten", "mdl", "usr", "file", "batch"}
)


def new() -> UUID:
    """A fresh UUIDv7 (RFC 9562): sorts by the time it was made."""
    return uuid7()


_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]


def base32(value: int, characters: int) -> str:
    """`value` in Crockford's alphabet, most significant first, zero-padded to `characters`.

    Two characters at a time: an id a request, 1 µs instead of 4.
    """
    if characters % 2:
        return ALPHABET[value >> 5 * (characters - 1) & 31] + base32(value, characters - 1)
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(5 * (characters - 2), -1, -10)])


def text(prefix: str, value: UUID) -> str:
    """`job_01k9zq6v8m3x5r2t7w4y0b1c2d`"""
    return f"{prefix}_{base32(value.int, 26)}"


_STEM = base32(uuid_utils.uuid7().int, 26)[:18]
_numbers = itertools.count()


def fresh(prefix: str) -> str:
    """The text of a new id, for what needs no UUID of it, a request for one: this process's stem and a number."""
    n = next(_numbers)
    return f"{prefix}_{_STEM}{_PAIRS[n >> 30 & 1023]}{_PAIRS[n >> 20 & 1023]}{_PAIRS[n >> 10 & 1023]}{_PAIRS[n & 1023]}"


def optional(prefix: str, value: UUID | None) -> str | None:
    return None if value is None else text(prefix, value)


def parse(prefix: str, given: str) -> UUID | None:
    """The UUID of `given`, or None when it is not the one text form of an id with this prefix."""
    head, _, tail = given.partition("_")
    if head != prefix or len(tail) != 26 or not _VALUES.keys() >= set(tail):
        return None
    number = 0
    for character in tail:
        number = number << 5 | _VALUES[character]
    return UUID(int=number) if number < 1 << 128 else None

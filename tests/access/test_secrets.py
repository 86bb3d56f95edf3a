"""The text of an API key, bit by bit."""

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from strongroom import ids
from strongroom.access import secrets

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def test_a_secret_has_the_contracts_form() -> None:
    secret = secrets.new()
    assert re.fullmatch(rf"sr_[{CROCKFORD}]{{10}}_[{CROCKFORD}]{{52}}[{CROCKFORD}]{{6}}", secret)
    assert secrets.well_formed(secret)
    assert secrets.prefix(secret) == secret[:13]


def test_the_checksum_is_the_first_30_bits_of_sha256_of_what_precedes() -> None:
    secret = secrets.new()
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(secret[:-6].encode()).digest())[:30]
    assert secret[-6:] == "".join(CROCKFORD[int(bits[at : at + 5], 2)] for at in range(0, 30, 5))


def test_the_random_part_carries_256_bits() -> None:
    """Over many secrets each of the 256 bits is seen as 0 and as 1, and the 4 above them as 0 only."""
    numbers = [_number(secrets.new()[14:66]) for _ in range(200)]
    assert all(any(number >> bit & 1 for number in numbers) for bit in range(256))
    assert not any(all(number >> bit & 1 for number in numbers) for bit in range(256))
    assert max(numbers) < 1 << 256


def test_no_two_secrets_are_equal() -> None:
    assert len({secrets.new() for _ in range(1000)}) == 1000


@given(st.integers(0, 81), st.sampled_from(CROCKFORD))
def test_one_wrong_character_is_noticed(position: int, character: str) -> None:
    secret = "sr_4fq2k7m9xd_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk"
    secret += secrets.checksum(secret)
    wrong = secret[:position] + character + secret[position + 1 :]
    assert secrets.well_formed(wrong) == (wrong == secret)


@given(st.text(max_size=100))
def test_other_text_is_no_secret(text: str) -> None:
    assert not secrets.well_formed(text)


def _number(text: str) -> int:
    number = 0
    for character in text:
        number = number << 5 | ids.ALPHABET.index(character)
    return number

"""Data keys sealed to a tenant's public key: who opens them, and for what only."""

import json
from uuid import UUID, uuid4

import pytest

from sealing import WrongKey, generate_tenant_key, new_data_key, unwrap_data_key, wrap_data_key
from tests.sealing.artefacts import ARTEFACT, TENANT
from tests.sealing.make_vectors import FOLDER

PAIR = generate_tenant_key()
DATA_KEY = new_data_key()
WRAPPED = wrap_data_key(PAIR.public, DATA_KEY, tenant=TENANT, artefact=ARTEFACT, generation=7)


def test_the_private_half_opens_what_the_public_half_sealed() -> None:
    assert unwrap_data_key(PAIR.private, WRAPPED, tenant=TENANT, artefact=ARTEFACT, generation=7) == DATA_KEY
    assert len(WRAPPED) == 1168


def test_the_checked_in_wrapped_key_opens() -> None:
    vector = json.loads((FOLDER / "wrapped.json").read_text())
    data_key = unwrap_data_key(
        bytes.fromhex(vector["private"]),
        bytes.fromhex(vector["wrapped"]),
        tenant=UUID(vector["tenant"]),
        artefact=UUID(vector["artefact"]),
        generation=vector["generation"],
    )
    assert data_key.hex() == vector["data_key"]


@pytest.mark.parametrize(
    ("tenant", "artefact", "generation"),
    [(uuid4(), ARTEFACT, 7), (TENANT, uuid4(), 7), (TENANT, ARTEFACT, 8)],
    ids=["tenant", "artefact", "generation"],
)
def test_a_data_key_of_another_tenant_artefact_or_generation_does_not_open(
    tenant: UUID, artefact: UUID, generation: int
) -> None:
    with pytest.raises(WrongKey):
        unwrap_data_key(PAIR.private, WRAPPED, tenant=tenant, artefact=artefact, generation=generation)


def test_another_tenants_private_key_does_not_open_it() -> None:
    other = generate_tenant_key()
    with pytest.raises(WrongKey) as refusal:
        unwrap_data_key(other.private, WRAPPED, tenant=TENANT, artefact=ARTEFACT, generation=7)
    assert str(refusal.value) == f"the data key of artefact {ARTEFACT} does not open with this key"


@pytest.mark.parametrize("place", [0, 1087, 1088, 1119, 1120, 1152, 1167])
def test_a_changed_wrapped_key_does_not_open(place: int) -> None:
    changed = bytearray(WRAPPED)
    changed[place] ^= 1
    with pytest.raises(WrongKey):
        unwrap_data_key(PAIR.private, bytes(changed), tenant=TENANT, artefact=ARTEFACT, generation=7)


@pytest.mark.parametrize(
    "wrapped", [b"", WRAPPED[:-1], WRAPPED + b"\0", bytes(1168), WRAPPED[:1088] + bytes(32) + WRAPPED[1120:]]
)
def test_what_is_no_wrapped_key_does_not_open(wrapped: bytes) -> None:
    with pytest.raises(WrongKey):
        unwrap_data_key(PAIR.private, wrapped, tenant=TENANT, artefact=ARTEFACT, generation=7)


def test_sealing_the_same_key_twice_gives_nothing_equal() -> None:
    again = wrap_data_key(PAIR.public, DATA_KEY, tenant=TENANT, artefact=ARTEFACT, generation=7)
    assert again[:1120] != WRAPPED[:1120]
    assert again[1120:] != WRAPPED[1120:]


def test_malformed_keys_are_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="1,216 bytes"):
        wrap_data_key(PAIR.public[:-1], DATA_KEY, tenant=TENANT, artefact=ARTEFACT, generation=7)
    with pytest.raises(ValueError, match="32 bytes"):
        wrap_data_key(PAIR.public, DATA_KEY[:-1], tenant=TENANT, artefact=ARTEFACT, generation=7)
    with pytest.raises(ValueError, match="96 bytes"):
        unwrap_data_key(PAIR.private[:-1], WRAPPED, tenant=TENANT, artefact=ARTEFACT, generation=7)


def test_a_key_pair_shows_its_public_half_only() -> None:
    assert PAIR.private.hex() not in repr(PAIR)
    assert repr(PAIR.private) not in repr(PAIR)

"""Slots: what a sandboxed child seals on its own is adopted only where all of its claims fit."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from sealing import Identity, SealWriter, new_data_key, wrap_data_key
from strongroom.errors import NotFound, Unavailable
from strongroom.tenants import scope
from strongroom.vault import keys, services
from strongroom.vault.models import Artefact
from strongroom.vault.services import Slot, SlotRefused

PLAIN = b"a checkpoint"


@dataclass
class Child:
    """What a job process does with its slot: a data key of its own, sealed to the public key that it was given."""

    slot: Slot
    claims: dict[str, Any]

    def seal(self, plain: bytes, artefact: UUID | None = None) -> None:
        public, generation = services.public_key(self.slot.tenant_id)
        artefact, key = artefact or uuid4(), new_data_key()
        writer = SealWriter(
            lambda piece: os.write(self.slot.descriptor, piece),
            key,
            Identity(self.slot.tenant_id, artefact, "checkpoint"),
        )
        writer.write(plain)
        writer.close()
        self.claims = {
            "kind": "checkpoint",
            "artefact_id": artefact,
            "header_tag": writer.header_tag,
            "wrapped_data_key": wrap_data_key(
                public, key, tenant=self.slot.tenant_id, artefact=artefact, generation=generation
            ),
            "generation": generation,
            "size_bytes": len(plain),
        }

    def adopted(self, **changes: Any) -> Artefact:
        return services.adopt(self.slot, **(self.claims | changes))


@pytest.fixture
def child(inside: UUID) -> Child:
    made = Child(services.open_slot(inside), {})
    made.seal(PLAIN)
    return made


def files(objects: Path) -> list[Path]:
    return [path for path in objects.rglob("*") if path.is_file()]


def test_what_a_child_sealed_is_adopted_and_reads_back(child: Child, objects: Path) -> None:
    artefact = child.adopted()
    assert services.read_bytes(Artefact.objects.get(id=artefact.id)) == PLAIN
    assert (artefact.kind, artefact.size_bytes) == ("checkpoint", len(PLAIN))
    assert files(objects) == [objects / artefact.object_name]


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("kind", "model"),
        ("artefact_id", uuid4()),
        ("header_tag", bytes(32)),
        ("header_tag", b""),
        ("wrapped_data_key", bytes(1167)),
        ("size_bytes", len(PLAIN) + 1),
        ("size_bytes", 0),
    ],
)
def test_a_claim_that_does_not_fit_is_refused_and_leaves_nothing(
    child: Child, objects: Path, claim: str, value: object
) -> None:
    with pytest.raises(SlotRefused):
        child.adopted(**{claim: value})
    assert files(objects) == []
    assert not Artefact.objects.exists()


def test_a_kind_or_generation_that_is_none_is_refused_and_leaves_nothing(inside: UUID, objects: Path) -> None:
    for changes, refusal in (({"kind": "weights"}, ValueError), ({"generation": 9}, NotFound)):
        child = Child(services.open_slot(inside), {})
        child.seal(PLAIN)
        with pytest.raises(refusal):
            child.adopted(**changes)
    assert files(objects) == []


@pytest.mark.parametrize("content", [b"", b"STRGROOM", bytes(200)])
def test_what_is_no_artefact_is_refused(child: Child, content: bytes) -> None:
    os.ftruncate(child.slot.descriptor, 0)
    os.pwrite(child.slot.descriptor, content, 0)
    with pytest.raises(SlotRefused):
        child.adopted()


def test_a_truncated_artefact_is_refused(child: Child) -> None:
    os.ftruncate(child.slot.descriptor, 150)
    with pytest.raises(SlotRefused, match="segment 0"):
        child.adopted()


def test_an_artefact_that_is_there_already_is_never_replaced(child: Child, inside: UUID) -> None:
    artefact = child.adopted()
    thief = Child(services.open_slot(inside), child.claims)
    key = new_data_key()
    writer = SealWriter(
        lambda piece: os.write(thief.slot.descriptor, piece), key, Identity(inside, artefact.id, "checkpoint")
    )
    writer.write(b"something else")
    writer.close()
    with pytest.raises(SlotRefused, match="there already"):
        thief.adopted(header_tag=writer.header_tag, size_bytes=14)
    assert services.read_bytes(Artefact.objects.get(id=artefact.id)) == PLAIN


def test_a_data_key_that_the_child_did_not_seal_to_the_tenant_shows_at_the_first_opening(child: Child) -> None:
    artefact = child.adopted(wrapped_data_key=bytes(1168))
    with pytest.raises(services.ArtefactCorrupt):
        services.read_bytes(Artefact.objects.get(id=artefact.id))


def test_a_slot_is_used_once(child: Child) -> None:
    child.adopted()
    with pytest.raises((SlotRefused, ValueError)):
        child.adopted()


def test_a_discarded_slot_leaves_nothing(inside: UUID, objects: Path) -> None:
    slot = services.open_slot(inside)
    assert len(files(objects)) == 1
    slot.discard()
    slot.discard()
    assert files(objects) == []


def test_a_child_cannot_read_its_slot(inside: UUID) -> None:
    slot = services.open_slot(inside)
    os.write(slot.descriptor, b"sealed")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pread(slot.descriptor, 6, 0)
    slot.discard()


def test_a_slot_waits_for_keys_that_are_away(child: Child, inside: UUID, ring: Path) -> None:
    keys.forget(inside)
    ring.rename(ring.with_name("unmounted"))
    with pytest.raises(Unavailable):
        child.adopted()
    ring.with_name("unmounted").rename(ring)
    assert services.read_bytes(child.adopted()) == PLAIN


def test_an_id_that_another_tenant_has_is_refused_and_leaves_nothing(
    tenant_id: UUID, other_tenant_id: UUID, objects: Path
) -> None:
    with scope.tenant(other_tenant_id):
        theirs = services.seal_bytes(other_tenant_id, "model", PLAIN)
    with scope.tenant(tenant_id):
        child = Child(services.open_slot(tenant_id), {})
        child.seal(PLAIN, artefact=theirs.id)
        with pytest.raises(SlotRefused, match="there already"):
            child.adopted()
    assert files(objects) == [objects / theirs.object_name]
    with scope.tenant(other_tenant_id):
        assert services.read_bytes(theirs) == PLAIN

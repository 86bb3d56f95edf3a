"""Artefacts through the vault's door: sealed, read back, refused when changed, ended."""

import errno
import hashlib
import hmac
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from sealing import generate_tenant_key, new_data_key, wrap_data_key
from strongroom.errors import Gone, StrongroomError, Unavailable
from strongroom.tenants import scope
from strongroom.vault import keys, services
from strongroom.vault.kms import Wrapped
from strongroom.vault.models import Artefact, TenantKey
from tests.sealing import independent

MARKER = b"MARKER: weights of the tenant"


def again(artefact: Artefact) -> Artefact:
    return Artefact.objects.get(id=artefact.id)


def object_of(objects: Path, artefact: Artefact) -> Path:
    return objects / artefact.object_name


def test_what_is_sealed_reads_back(inside: UUID) -> None:
    artefact = services.seal_bytes(inside, "model", MARKER)
    assert services.read_bytes(again(artefact)) == MARKER
    assert (artefact.size_bytes, artefact.stored_bytes) == (len(MARKER), len(MARKER) + 152)
    assert artefact.tenant_id == inside


def test_a_stream_is_sealed_as_it_comes(inside: UUID, objects: Path) -> None:
    draft = services.new_artefact(inside, "data", expires_at=timezone.now() + timedelta(days=1))
    digest, writer = hashlib.sha256(), draft.writer()
    for number in range(40):
        piece = bytes([number]) * 99_999
        digest.update(piece)
        writer.write(piece)
    writer.close()
    draft.publish()
    artefact = again(draft.row())
    assert artefact.id == draft.identity.artefact
    assert artefact.size_bytes == 40 * 99_999
    assert artefact.stored_bytes == object_of(objects, artefact).stat().st_size
    assert artefact.expires_at is not None
    with services.reader(artefact) as content:
        assert hashlib.sha256(content.read()).digest() == digest.digest()


def test_a_draft_that_nobody_takes_leaves_nothing(inside: UUID, objects: Path) -> None:
    draft = services.new_artefact(inside, "data")
    descriptor = draft.descriptor
    del draft
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert list((objects / "tmp").iterdir()) == []


def test_the_stored_file_opens_with_the_independent_reader_and_holds_no_plaintext(inside: UUID, objects: Path) -> None:
    artefact = services.seal_bytes(inside, "model", MARKER)
    stored = object_of(objects, artefact).read_bytes()
    assert MARKER not in stored
    key = services.data_key(again(artefact))
    assert independent.read(stored, key, inside, artefact.id, "model") == MARKER


def test_a_sealed_file_is_handed_on_as_a_read_only_descriptor(inside: UUID) -> None:
    artefact = services.seal_bytes(inside, "model", MARKER)
    descriptor = services.sealed_descriptor(artefact)
    assert os.pread(descriptor, 8, 0) == b"STRGROOM"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(descriptor, b"x", 0)
    os.close(descriptor)


def test_no_plaintext_key_is_in_any_row(inside: UUID) -> None:
    draft = services.new_artefact(inside, "model")
    draft.fill(MARKER)
    draft.publish()
    draft.row()
    rows = [*Artefact.objects.values_list(), *TenantKey.objects.values_list()]
    values = [bytes(value) for row in rows for value in row if isinstance(value, bytes | memoryview)]
    private, column = keys.private_key(inside, 1).reveal(), keys.column_key(inside, 1)
    assert values
    assert not any(secret in value for secret in (draft.data_key, private, column) for value in values)


def test_keys_do_not_show_in_a_draft(inside: UUID) -> None:
    draft = services.new_artefact(inside, "model")
    assert draft.data_key.hex() not in repr(draft)
    assert repr(draft.data_key)[2:-1] not in repr(draft)
    draft.abort()


# --- what a writer of storage and database can do


@pytest.fixture
def artefact(inside: UUID) -> Artefact:
    return again(services.seal_bytes(inside, "model", MARKER))


@pytest.mark.parametrize("place", [0, 16, 40, 50, 70, 97, 130, 136, -1])
def test_a_changed_file_is_refused_and_named(artefact: Artefact, objects: Path, place: int) -> None:
    path = object_of(objects, artefact)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(services.ArtefactCorrupt, match=str(artefact.id)):
        services.read_bytes(artefact)


def test_exchanged_files_are_refused(artefact: Artefact, objects: Path, inside: UUID) -> None:
    other = services.seal_bytes(inside, "model", MARKER)
    first, second = object_of(objects, artefact), object_of(objects, other)
    first.rename(first.with_name("x"))
    second.rename(first)
    first.with_name("x").rename(second)
    for row in (artefact, other):
        with pytest.raises(services.ArtefactCorrupt):
            services.read_bytes(row)


def test_a_missing_file_is_refused_and_named(artefact: Artefact, objects: Path) -> None:
    object_of(objects, artefact).unlink()
    for use in (services.read_bytes, services.sealed_descriptor):
        with pytest.raises(services.ArtefactCorrupt, match=str(artefact.id)):
            use(artefact)


@pytest.mark.parametrize("column", ["header_tag", "row_tag", "wrapped_data_key", "kind", "stored_bytes"])
def test_a_changed_row_is_refused(artefact: Artefact, column: str) -> None:
    changes = {"kind": "data", "stored_bytes": artefact.stored_bytes - 1}
    Artefact.objects.filter(id=artefact.id).update(
        **{column: changes.get(column) or bytes([bytes(getattr(artefact, column))[0] ^ 1]) + b"\0" * 31}
    )
    with pytest.raises(services.ArtefactCorrupt):
        services.read_bytes(again(artefact))


def test_columns_of_another_artefact_are_refused(artefact: Artefact, inside: UUID) -> None:
    other = services.seal_bytes(inside, "model", b"another")
    columns = ("header_tag", "row_tag", "wrapped_data_key", "object_name", "stored_bytes")
    values = {column: getattr(again(other), column) for column in columns} | {"object_name": "elsewhere"}
    Artefact.objects.filter(id=artefact.id).update(**values)
    with pytest.raises(services.ArtefactCorrupt):
        services.data_key(again(artefact))


def test_a_model_planted_with_the_public_key_alone_is_refused(artefact: Artefact, inside: UUID, objects: Path) -> None:
    """Storage, database and the public key in hand: file, header tag and wrapped key fit, the row tag does not."""
    public, generation = services.public_key(inside)
    planted_key = new_data_key()
    stored = independent.write(b"a planted model", planted_key, 20, inside, artefact.id, "model")
    object_of(objects, artefact).write_bytes(stored)
    wrapped = wrap_data_key(public, planted_key, tenant=inside, artefact=artefact.id, generation=generation)
    Artefact.objects.filter(id=artefact.id).update(
        header_tag=stored[64:96], wrapped_data_key=wrapped, stored_bytes=len(stored), size_bytes=15
    )
    with pytest.raises(services.ArtefactCorrupt):
        services.read_bytes(again(artefact))


def test_a_public_key_exchanged_for_ones_own_gives_artefacts_that_do_not_open(inside: UUID) -> None:
    TenantKey.objects.filter(tenant_id=inside).update(public_key=generate_tenant_key().public)
    planted = services.seal_bytes(inside, "model", MARKER)
    with pytest.raises(services.ArtefactCorrupt):
        services.read_bytes(again(planted))


# --- other tenants


def test_another_tenant_reads_neither_row_nor_key(tenant_id: UUID, other_tenant_id: UUID) -> None:
    with scope.tenant(tenant_id):
        artefact = services.seal_bytes(tenant_id, "model", MARKER)
        services.read_bytes(artefact)  # the keys are in this process's cache now
    with scope.tenant(other_tenant_id):
        assert not Artefact.objects.filter(id=artefact.id).exists()
        with pytest.raises(scope.NoScope):
            services.read_bytes(artefact)
        with pytest.raises(scope.NoScope):
            services.seal_bytes(tenant_id, "model", MARKER)
    with pytest.raises(scope.NoScope):
        services.data_key(artefact)


def test_each_tenant_has_keys_of_its_own(tenant_id: UUID, other_tenant_id: UUID) -> None:
    with scope.tenant(tenant_id):
        first = services.public_key(tenant_id)
        assert services.public_key(tenant_id) == first
    with scope.tenant(other_tenant_id):
        assert services.public_key(other_tenant_id)[0] != first[0]


# --- drafts


def test_a_draft_that_breaks_off_leaves_nothing(inside: UUID, objects: Path) -> None:
    for stop_after in ("nothing", "writing", "publishing"):
        draft = services.new_artefact(inside, "data")
        if stop_after != "nothing":
            writer = draft.writer()
            writer.write(MARKER)
            writer.close()
        if stop_after == "publishing":
            draft.publish()
        draft.abort()
        draft.abort()
    assert [path for path in objects.rglob("*") if path.is_file()] == []
    assert not Artefact.objects.exists()


def test_a_draft_is_not_published_before_its_writer_is_closed(inside: UUID) -> None:
    draft = services.new_artefact(inside, "data")
    with pytest.raises(ValueError, match="close the draft's writer"):
        draft.publish()
    draft.writer().write(MARKER)
    with pytest.raises(ValueError, match="close the draft's writer"):
        draft.publish()
    draft.abort()


def test_a_drafts_data_key_seals_one_stream_only(inside: UUID) -> None:
    draft = services.new_artefact(inside, "data")
    draft.writer()
    with pytest.raises(ValueError, match="one stream"):
        draft.writer()
    with pytest.raises(ValueError, match="one stream"):
        draft.fill(MARKER)
    draft.abort()


def test_steps_out_of_order_are_refused(inside: UUID) -> None:
    draft = services.new_artefact(inside, "data")
    with pytest.raises(ValueError, match="must be published"):
        draft.row()
    draft.fill(MARKER)
    draft.publish()
    with pytest.raises(ValueError, match="must be open"):
        draft.publish()
    artefact = draft.row()
    with pytest.raises(ValueError, match="must be published"):
        draft.row()
    draft.abort()  # too late: the row counts
    assert services.read_bytes(artefact) == MARKER


def test_a_kind_that_is_none_is_refused(inside: UUID) -> None:
    with pytest.raises(ValueError, match="kind 'weights'"):
        services.new_artefact(inside, "weights")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(descriptor: int, data: bytes, *offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        patch.setattr(os, "pwrite", refuse)
        yield


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_503_storage_full_and_leaves_nothing(inside: UUID, objects: Path) -> None:
    with pytest.raises(Unavailable) as refusal:
        services.seal_bytes(inside, "model", MARKER)
    assert (refusal.value.code, refusal.value.status) == ("storage_full", 503)
    draft = services.new_artefact(inside, "data")
    with pytest.raises(Unavailable):
        draft.writer()
    draft.abort()
    assert list((objects / "tmp").iterdir()) == []


# --- keys that are away


@pytest.fixture
def away(artefact: Artefact, ring: Path) -> Iterator[Artefact]:
    """The ring is not mounted and nothing is cached."""
    keys.forget(artefact.tenant_id)
    ring.rename(ring.with_name("unmounted"))
    yield artefact
    ring.with_name("unmounted").rename(ring)


def test_while_keys_are_away_opening_is_503_and_sealing_goes_on(away: Artefact, inside: UUID) -> None:
    with pytest.raises(Unavailable) as refusal:
        services.data_key(away)
    assert (refusal.value.code, refusal.value.status) == ("keys_unavailable", 503)
    assert refusal.value.retry_after_seconds
    draft = services.new_artefact(inside, "data")
    draft.fill(MARKER)
    draft.publish()
    draft.abort()
    assert services.root_keys_health() != "ok"
    assert services.store_health() == "ok"


def test_opened_keys_serve_on_while_the_key_service_is_away(artefact: Artefact, ring: Path) -> None:
    services.read_bytes(artefact)
    ring.rename(ring.with_name("unmounted"))
    assert services.read_bytes(artefact) == MARKER


def test_destroyed_root_keys_are_410(artefact: Artefact) -> None:
    keys.kms().destroy(f"tenant-{artefact.tenant_id}")
    keys.forget(artefact.tenant_id)
    with pytest.raises(Gone) as refusal:
        services.read_bytes(artefact)
    assert refusal.value.status == 410


def test_a_wrong_ring_is_found_at_the_start_and_says_what_to_do(artefact: Artefact, ring: Path) -> None:
    with scope.tenant(artefact.tenant_id):
        keys.verify_ring()
    (ring / "master").write_text("ab" * 32)
    with pytest.raises(services.WrongRing, match="STRONGROOM_KMS"):
        keys.verify_ring()
    keys.forget(artefact.tenant_id)
    with pytest.raises(StrongroomError, match="key service refused"):
        services.data_key(artefact)
    ring.rename(ring.with_name("lost"))
    ring.mkdir(mode=0o700)
    with pytest.raises(services.WrongRing, match="no generation 1"):
        keys.verify_ring()


def test_the_ring_is_verified_without_a_callers_scope(tenant_id: UUID, ring: Path) -> None:
    services.verify_ring()
    (ring / "master").write_text("ab" * 32)
    with pytest.raises(services.WrongRing):
        services.verify_ring()


def test_a_second_generation_seals_and_the_first_still_opens(artefact: Artefact, inside: UUID) -> None:
    TenantKey.objects.filter(tenant_id=inside).update(state=TenantKey.State.RETIRED)
    services.create_tenant_keys(inside)
    assert services.public_key(inside)[1] == 2
    newer = services.seal_bytes(inside, "model", b"newer")
    assert newer.tenant_key.generation == 2
    assert services.read_bytes(again(artefact)) == MARKER
    assert services.read_bytes(again(newer)) == b"newer"


def test_a_tenants_keys_are_made_once(inside: UUID) -> None:
    before = services.public_key(inside)
    services.create_tenant_keys(inside)
    assert services.public_key(inside) == before
    assert TenantKey.objects.count() == 1


# --- the end


def test_a_destroyed_artefact_loses_its_key_at_once_and_its_file_after_the_commit(
    artefact: Artefact, objects: Path, django_capture_on_commit_callbacks: object
) -> None:
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]  # a fixture that is a function
        services.destroy(artefact)
        assert bytes(again(artefact).wrapped_data_key) == b""
        assert object_of(objects, artefact).exists()
    assert not object_of(objects, artefact).exists()
    for row in (artefact, again(artefact)):
        with pytest.raises(Gone):
            services.read_bytes(row)
        with pytest.raises(Gone):
            services.sealed_descriptor(row)
    destroyed_at = again(artefact).destroyed_at
    services.destroy(artefact)
    assert again(artefact).destroyed_at == destroyed_at


def test_stored_bytes_count_what_is_sealed_and_not_what_is_destroyed(artefact: Artefact, inside: UUID) -> None:
    other = services.seal_bytes(inside, "data", bytes(1000))
    assert services.stored_bytes(inside) == artefact.stored_bytes + other.stored_bytes
    services.destroy(other)
    assert services.stored_bytes(inside) == artefact.stored_bytes
    assert services.stored_bytes(uuid4()) == 0


def test_what_has_expired_is_destroyed_and_nothing_else(tenant_id: UUID) -> None:
    now = timezone.now()
    with scope.tenant(tenant_id):
        due = services.seal_bytes(tenant_id, "output", MARKER, expires_at=now)
        later = services.seal_bytes(tenant_id, "output", MARKER, expires_at=now + timedelta(seconds=1))
        never = services.seal_bytes(tenant_id, "output", MARKER)
    assert services.expire(now) == 1
    assert services.expire(now) == 0
    with scope.tenant(tenant_id):
        assert [again(row).state for row in (due, later, never)] == ["destroyed", "sealed", "sealed"]


def test_old_files_without_a_row_are_collected(
    tenant_id: UUID, objects: Path, django_capture_on_commit_callbacks: object
) -> None:
    with scope.tenant(tenant_id):
        kept = services.seal_bytes(tenant_id, "model", MARKER)
        destroyed = services.seal_bytes(tenant_id, "model", MARKER)
        services.destroy(destroyed)  # its callback never runs here: the process died
        published = services.new_artefact(tenant_id, "data")
        published.fill(MARKER)
        published.publish()
        unfinished = services.new_artefact(tenant_id, "data")
        young = services.new_artefact(tenant_id, "data")
    old = [path for path in objects.rglob("*") if path.is_file()]
    for path in old:
        if path.stat().st_ino != os.fstat(young.descriptor).st_ino:
            os.utime(path, (1, 1))
    assert services.collect_orphans() == 3
    left = {path.stat().st_ino for path in objects.rglob("*") if path.is_file()}
    assert left == {object_of(objects, kept).stat().st_ino, os.fstat(young.descriptor).st_ino}
    with scope.tenant(tenant_id):
        assert services.read_bytes(kept) == MARKER
    unfinished.abort()
    young.abort()


def test_the_row_tag_is_the_one_of_the_page(artefact: Artefact, inside: UUID) -> None:
    """docs/formats/artefact.md, computed by the standard library alone from the field key."""
    field_key = keys._field_key(inside, 1).reveal()
    key = independent.hkdf(field_key, b"strongroom artefact row 1")
    message = inside.bytes + artefact.id.bytes + b"model".ljust(16, b"\0") + b"\0\0\0\1"
    message += bytes(artefact.header_tag) + bytes(artefact.wrapped_data_key)
    assert hmac.digest(key, message, "sha256") == bytes(artefact.row_tag)


def test_the_wrapped_keys_have_the_contexts_of_the_page(inside: UUID) -> None:
    row = TenantKey.objects.get()
    for what, blob, length in (("tenant", row.wrapped_private_key, 96), ("field", row.wrapped_field_key, 32)):
        context = f"strongroom {what} key 1".encode() + inside.bytes + b"\0\0\0\1"
        assert len(keys.kms().unwrap(f"tenant-{inside}", Wrapped(1, bytes(blob)), context)) == length


def test_a_draft_whose_row_waits_for_the_keys_is_entered_later(artefact: Artefact, inside: UUID, ring: Path) -> None:
    draft = services.new_artefact(inside, "data")
    draft.fill(MARKER)
    draft.publish()
    keys.forget(inside)
    ring.rename(ring.with_name("unmounted"))
    with pytest.raises(Unavailable):
        draft.row()
    ring.with_name("unmounted").rename(ring)
    assert services.read_bytes(draft.row()) == MARKER

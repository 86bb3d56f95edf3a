"""Objects get their name when they are whole, never over another one."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.vault.store import NameTaken, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "objects")


def put(store: Store, name: str, content: bytes) -> None:
    temporary = store.begin()
    os.write(temporary.descriptor, content)
    store.publish(temporary, name)
    os.close(temporary.descriptor)


def content_of(store: Store, name: str) -> bytes:
    descriptor = store.open(name)
    try:
        return os.pread(descriptor, 1000, 0)
    finally:
        os.close(descriptor)


def test_a_published_object_is_read_by_its_name_and_nothing_is_left_under_tmp(store: Store, tmp_path: Path) -> None:
    put(store, "tenant/artefact", b"sealed")
    assert content_of(store, "tenant/artefact") == b"sealed"
    assert list((tmp_path / "objects" / "tmp").iterdir()) == []


def test_an_object_is_not_there_before_it_is_published(store: Store) -> None:
    temporary = store.begin()
    os.write(temporary.descriptor, b"sealed")
    with pytest.raises(FileNotFoundError):
        store.open("tenant/artefact")
    os.close(temporary.descriptor)


def test_an_object_is_never_replaced(store: Store) -> None:
    put(store, "tenant/artefact", b"first")
    with pytest.raises(NameTaken):
        put(store, "tenant/artefact", b"second")
    assert content_of(store, "tenant/artefact") == b"first"


def test_objects_can_be_read_and_written_by_their_owner_only(store: Store, tmp_path: Path) -> None:
    put(store, "tenant/artefact", b"sealed")
    modes = {path: path.stat().st_mode & 0o077 for path in tmp_path.rglob("*") if path != tmp_path / "objects"}
    assert set(modes.values()) == {0}


def test_a_descriptor_for_a_child_writes_only_and_an_opened_one_reads_only(store: Store) -> None:
    temporary = store.begin(readable=False)
    os.write(temporary.descriptor, b"sealed")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pread(temporary.descriptor, 1, 0)
    os.close(temporary.descriptor)
    put(store, "tenant/artefact", b"sealed")
    descriptor = store.open("tenant/artefact")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"!")
    os.close(descriptor)


def test_removing_twice_is_removing_once(store: Store) -> None:
    put(store, "tenant/artefact", b"sealed")
    store.remove("tenant/artefact")
    store.remove("tenant/artefact")
    with pytest.raises(FileNotFoundError):
        store.open("tenant/artefact")


def test_old_objects_are_listed_temporary_ones_too(store: Store, tmp_path: Path) -> None:
    put(store, "tenant/old", b"")
    put(store, "tenant/new", b"")
    temporary = store.begin()
    os.close(temporary.descriptor)
    yesterday = time.time() - 90_000
    for name in ("tenant/old", temporary.name):
        os.utime(tmp_path / "objects" / name, (yesterday, yesterday))
    assert set(store.older_than(datetime.now(UTC) - timedelta(days=1))) == {"tenant/old", temporary.name}


def test_a_link_in_the_place_of_an_object_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "objects" / "tenant").mkdir()
    (tmp_path / "objects" / "tenant" / "artefact").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        store.open("tenant/artefact")


def test_a_store_says_when_it_cannot_be_used(store: Store, tmp_path: Path) -> None:
    assert store.health() == "ok"
    (tmp_path / "objects").rename(tmp_path / "unmounted")
    assert "cannot be written" in store.health()

"""The ring of key files: what it gives, what it refuses, and what racing processes and a wrong master do to it."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from strongroom.vault.kms import KmsGone, KmsRefused, KmsUnavailable, RingKms, Wrapped
from tests.depth import examples

KEY = "tenant-7"


@pytest.fixture
def ring(tmp_path: Path) -> RingKms:
    return RingKms(tmp_path / "ring")


@pytest.fixture
def made(ring: RingKms) -> RingKms:
    assert ring.create(KEY) == 1
    return ring


@given(st.binary(max_size=200), st.binary(max_size=60))
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_wrapped_unwraps_with_its_context(made: RingKms, secret: bytes, context: bytes) -> None:
    wrapped = made.wrap(KEY, secret, context)
    assert made.unwrap(KEY, wrapped, context) == secret
    assert len(wrapped.blob) == len(secret) + 28
    with pytest.raises(KmsRefused):
        made.unwrap(KEY, wrapped, context + b"!")


def test_the_first_key_of_an_empty_ring_needs_no_preparation(ring: RingKms, tmp_path: Path) -> None:
    assert not ring.health().ok
    assert ring.create(KEY) == 1
    assert ring.health().ok
    assert (tmp_path / "ring" / "master").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ring" / KEY / "1.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ring").stat().st_mode & 0o777 == 0o700


def test_creating_twice_changes_nothing(made: RingKms) -> None:
    wrapped = made.wrap(KEY, b"secret", b"")
    assert made.create(KEY) == 1
    assert made.unwrap(KEY, wrapped, b"") == b"secret"


def test_a_new_generation_wraps_and_the_old_one_still_unwraps(made: RingKms) -> None:
    old = made.wrap(KEY, b"secret", b"")
    assert made.rotate(KEY) == 2
    new = made.wrap(KEY, b"secret", b"")
    assert (old.generation, new.generation, made.generations(KEY)) == (1, 2, [1, 2])
    assert made.unwrap(KEY, old, b"") == made.unwrap(KEY, new, b"") == b"secret"
    with pytest.raises(KmsRefused):
        made.unwrap(KEY, Wrapped(2, old.blob), b"")


def test_a_destroyed_generation_is_gone_and_its_number_never_comes_back(made: RingKms) -> None:
    wrapped = made.wrap(KEY, b"secret", b"")
    made.destroy(KEY)
    with pytest.raises(KmsGone):
        made.unwrap(KEY, wrapped, b"")
    with pytest.raises(KmsGone):
        made.wrap(KEY, b"secret", b"")
    with pytest.raises(KmsGone):
        made.rotate(KEY)
    assert made.generations(KEY) == []
    assert made.create(KEY) == 2
    with pytest.raises(KmsGone):
        made.unwrap(KEY, wrapped, b"")


def test_one_generation_is_destroyed_without_the_others(made: RingKms) -> None:
    old = made.wrap(KEY, b"secret", b"")
    made.rotate(KEY)
    new = made.wrap(KEY, b"secret", b"")
    made.destroy(KEY, 1)
    with pytest.raises(KmsGone):
        made.unwrap(KEY, old, b"")
    assert made.unwrap(KEY, new, b"") == b"secret"


def test_a_key_that_was_never_made_is_gone(made: RingKms) -> None:
    for ask in (lambda: made.wrap("tenant-8", b"", b""), lambda: made.rotate("tenant-8")):
        with pytest.raises(KmsGone):
            ask()


@pytest.mark.parametrize("blob", [b"", b"short", bytes(27), bytes(60)])
def test_what_was_never_wrapped_is_refused(made: RingKms, blob: bytes) -> None:
    with pytest.raises(KmsRefused):
        made.unwrap(KEY, Wrapped(1, blob), b"")


def test_a_secret_of_one_key_does_not_unwrap_with_another(made: RingKms) -> None:
    made.create("tenant-8")
    with pytest.raises(KmsRefused):
        made.unwrap("tenant-8", made.wrap(KEY, b"secret", b""), b"")


def test_a_key_file_under_another_name_is_refused(made: RingKms, tmp_path: Path) -> None:
    folder = tmp_path / "ring"
    (folder / "tenant-8").mkdir()
    (folder / "tenant-8" / "1.key").write_bytes((folder / KEY / "1.key").read_bytes())
    with pytest.raises(KmsRefused):
        made.wrap("tenant-8", b"secret", b"")


def test_another_master_is_refused_and_named(made: RingKms, tmp_path: Path) -> None:
    wrapped = made.wrap(KEY, b"secret", b"")
    (tmp_path / "ring" / "master").write_text("ab" * 32)
    with pytest.raises(KmsRefused, match="master"):
        made.unwrap(KEY, wrapped, b"")


def test_a_missing_master_is_never_replaced_while_there_are_keys(made: RingKms, tmp_path: Path) -> None:
    (tmp_path / "ring" / "master").unlink()
    for ask in (lambda: made.wrap(KEY, b"secret", b""), lambda: made.create("tenant-8")):
        with pytest.raises(KmsRefused, match="restore it"):
            ask()
    assert not made.health().ok
    assert not (tmp_path / "ring" / "master").exists()


@pytest.mark.parametrize("content", ["", "ab" * 31, "zz" * 32, "ab" * 33])
def test_a_master_of_another_form_is_refused(made: RingKms, tmp_path: Path, content: str) -> None:
    (tmp_path / "ring" / "master").write_text(content)
    with pytest.raises(KmsRefused, match="64 hexadecimal digits"):
        made.wrap(KEY, b"secret", b"")


def test_a_master_that_others_may_read_is_refused(made: RingKms, tmp_path: Path) -> None:
    (tmp_path / "ring" / "master").chmod(0o640)
    with pytest.raises(KmsRefused, match="chmod 600"):
        made.wrap(KEY, b"secret", b"")
    assert "chmod 600" in made.health().detail


def test_a_ring_that_is_not_there_is_unavailable_and_not_gone(made: RingKms, tmp_path: Path) -> None:
    wrapped = made.wrap(KEY, b"secret", b"")
    (tmp_path / "ring").rename(tmp_path / "unmounted")
    for ask in (lambda: made.unwrap(KEY, wrapped, b""), lambda: made.wrap(KEY, b"", b"")):
        with pytest.raises(KmsUnavailable):
            ask()
    (tmp_path / "unmounted").rename(tmp_path / "ring")
    assert made.unwrap(KEY, wrapped, b"") == b"secret"


def test_racing_processes_agree_on_one_key(ring: RingKms, tmp_path: Path) -> None:
    children = []
    gate, open_gate = os.pipe()
    for number in range(6):
        child = os.fork()
        if child == 0:
            try:
                os.close(open_gate)
                os.read(gate, 1)
                mine = RingKms(tmp_path / "ring")
                mine.create(KEY)
                wrapped = mine.wrap(KEY, b"secret", b"")
                (tmp_path / f"wrapped-{number}").write_bytes(wrapped.blob)
            finally:
                os._exit(0)
        children.append(child)
    os.close(open_gate)
    for child in children:
        os.waitpid(child, 0)
    os.close(gate)
    for number in range(6):
        assert ring.unwrap(KEY, Wrapped(1, (tmp_path / f"wrapped-{number}").read_bytes()), b"") == b"secret"
    assert sorted(path.name for path in (tmp_path / "ring" / KEY).iterdir()) == ["1.key"]


def test_racing_threads_agree_on_one_key(made: RingKms) -> None:
    together, blobs = threading.Barrier(8), []

    def work() -> None:
        together.wait()
        made.create("tenant-9")
        blobs.append(made.wrap("tenant-9", b"secret", b""))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made.unwrap("tenant-9", blob, b"") for blob in blobs] == [b"secret"] * 8


def test_no_key_file_holds_anything_in_plaintext(made: RingKms, tmp_path: Path) -> None:
    wrapped = made.wrap(KEY, b"a secret with a marker", b"")
    assert b"marker" not in wrapped.blob
    assert len((tmp_path / "ring" / KEY / "1.key").read_bytes()) == 12 + 32 + 16


class RingMachine(RuleBasedStateMachine):
    """Any order of creating, rotating, wrapping and destroying: what unwraps is just what is not destroyed."""

    @initialize(folder=st.uuids())
    def begin(self, folder: object) -> None:
        import tempfile  # an empty folder for keys that guard nothing

        self.folder = tempfile.TemporaryDirectory()
        self.ring = RingKms(Path(self.folder.name) / str(folder))
        self.ring.create("another")
        self.alive: list[int] = []
        self.newest = 0
        self.wrapped: list[Wrapped] = []

    @rule()
    def create(self) -> None:
        if not self.alive:
            self.newest += 1
            self.alive.append(self.newest)
        assert self.ring.create(KEY) == self.alive[-1]

    @precondition(lambda self: self.alive)
    @rule()
    def rotate(self) -> None:
        self.newest += 1
        self.alive.append(self.newest)
        assert self.ring.rotate(KEY) == self.newest

    @precondition(lambda self: self.alive)
    @rule()
    def wrap(self) -> None:
        self.wrapped.append(self.ring.wrap(KEY, b"secret", b"context"))
        assert self.wrapped[-1].generation == self.alive[-1]

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 9))
    def destroy(self, which: int) -> None:
        generation = self.alive.pop(which % len(self.alive))
        self.ring.destroy(KEY, generation)

    @rule()
    def unwrap_everything(self) -> None:
        assert self.ring.generations(KEY) == self.alive
        for wrapped in self.wrapped:
            if wrapped.generation in self.alive:
                assert self.ring.unwrap(KEY, wrapped, b"context") == b"secret"
            else:
                with pytest.raises(KmsGone):
                    self.ring.unwrap(KEY, wrapped, b"context")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestRingInAnyOrder = RingMachine.TestCase
TestRingInAnyOrder.settings = settings(max_examples=examples(15), stateful_step_count=15)

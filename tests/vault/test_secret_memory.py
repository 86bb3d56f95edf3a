"""Where opened keys lie: read back, wiped, in no dump and in no forked child."""

import os
import threading
from pathlib import Path

import pytest

from strongroom.vault import secret_memory
from strongroom.vault.keyring import Key
from strongroom.vault.secret_memory import PAGE_BYTES, SLOT_BYTES, SecretMemory


@pytest.fixture(params=["memfd_secret", "locked"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SecretMemory:
    if request.param == "locked":
        monkeypatch.setattr(secret_memory, "_MEMFD_SECRET", -1)  # as on a kernel without it
    elif secret_memory._hidden_page() is None:
        pytest.skip("this kernel has no memfd_secret")
    return SecretMemory()


def test_what_is_kept_reads_back_over_many_pages(memory: SecretMemory) -> None:
    secrets = [os.urandom(number % (SLOT_BYTES + 1)) for number in range(3 * PAGE_BYTES // SLOT_BYTES)]
    slots = [memory.keep(secret) for secret in secrets]
    assert [memory.read(slot) for slot in slots] == secrets
    assert len({slot.address for slot in slots}) == len(slots)


def test_a_wiped_slot_is_empty_and_is_given_out_again(memory: SecretMemory) -> None:
    slot = memory.keep(b"secret")
    memory.wipe(slot)
    assert memory.read(slot) == bytes(6)
    assert memory.keep(b"").address == slot.address


def test_a_secret_that_is_too_long_is_refused(memory: SecretMemory) -> None:
    with pytest.raises(ValueError, match="128 bytes"):
        memory.keep(bytes(SLOT_BYTES + 1))


def test_threads_keep_secrets_at_once(memory: SecretMemory) -> None:
    wrong: list[bytes] = []

    def work(name: int) -> None:
        for _ in range(200):
            slot = memory.keep(bytes([name]) * 32)
            if (found := memory.read(slot)) != bytes([name]) * 32:
                wrong.append(found)
            memory.wipe(slot)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_pages_are_left_out_of_dumps(memory: SecretMemory) -> None:
    address = memory.keep(b"secret").address
    flags = ""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and line.startswith("VmFlags:"):
            flags = line
    assert " dd" in flags


def test_a_forked_child_finds_nothing_and_leaves_its_parents_keys_alone(memory: SecretMemory) -> None:
    slot = memory.keep(b"secret")
    child = os.fork()
    if child == 0:
        found = 1
        try:
            memory.wipe(slot)
            memory.read(slot)
        except RuntimeError:
            found = 0
        finally:
            os._exit(found)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert memory.read(slot) == b"secret"


def test_a_forked_child_keeps_keys_of_its_own() -> None:
    key = Key(b"the parent's")
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = Key(b"the child's").reveal() == b"the child's"
            key.reveal()
            good = False
        except RuntimeError:
            pass
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert key.reveal() == b"the parent's"


def test_a_key_that_nobody_holds_is_wiped() -> None:
    key = Key(b"secret")
    memory, slot = key._memory, key._slot
    del key
    assert memory.read(slot) == bytes(6)

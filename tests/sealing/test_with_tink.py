"""Both directions with Tink at every boundary: what we seal Tink opens, what Tink seals we open."""

import os

import pytest

from sealing import SealReader, seal_memory
from tests.sealing import independent
from tests.sealing.artefacts import ARTEFACT, BOUNDARIES, KEY, LOG2, MODEL, TENANT, descriptor_of, opened, sealed


@pytest.mark.parametrize("size", BOUNDARIES)
def test_the_independent_reader_opens_what_we_seal(size: int) -> None:
    plain = os.urandom(size)
    assert independent.read(sealed(plain), KEY, TENANT, ARTEFACT, "model") == plain


@pytest.mark.parametrize("size", BOUNDARIES)
def test_we_open_what_the_independent_writer_seals(size: int) -> None:
    plain = os.urandom(size)
    assert opened(independent.write(plain, KEY, LOG2, TENANT, ARTEFACT, "model")) == plain


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", BOUNDARIES)
def test_the_independent_reader_opens_what_is_sealed_from_memory(size: int, workers: int) -> None:
    plain = os.urandom(size)
    with descriptor_of(b"") as target:
        seal_memory(plain, target, KEY, MODEL, segment_log2=LOG2, workers=workers)
        assert independent.read(os.pread(target, 1 << 24, 0), KEY, TENANT, ARTEFACT, "model") == plain


def test_both_agree_on_segments_of_1_mib_with_two_workers() -> None:
    plain = os.urandom((9 << 20) + 5)
    with descriptor_of(b"") as target:
        tag = seal_memory(plain, target, KEY, MODEL)
        stored = os.pread(target, 1 << 24, 0)
        assert independent.read(stored, KEY, TENANT, ARTEFACT, "model") == plain
        reader = SealReader(target, KEY, MODEL, header_tag=tag, stored_bytes=len(stored))
        out = bytearray(len(plain))
        assert reader.readinto(out, workers=2) == len(plain)
        assert out == plain

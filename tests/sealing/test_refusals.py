"""What must be refused, beyond the table of broken vectors: every bit and cut, other keys, other streams."""

import os
import random
from uuid import uuid4

import pytest

from sealing import ArtefactCorrupt, Identity, SealReader, inspect
from sealing.cipher import Cipher, derive, new_stream_header, tag_of
from tests.sealing import independent
from tests.sealing.artefacts import (
    ARTEFACT,
    FIRST,
    KEY,
    LOG2,
    MODEL,
    REST,
    SEGMENT,
    TENANT,
    descriptor_of,
    opened,
    reader_of,
    sealed,
)
from tests.sealing.salamander import ciphertext_for_two_keys

FOUR_SEGMENTS = FIRST + 2 * REST + 777
STARTS = [96 + index * SEGMENT for index in range(4)]  # of its segments; the first begins with Tink's header


def refused(stored: bytes, **expectations: object) -> ArtefactCorrupt:
    with pytest.raises(ArtefactCorrupt) as refusal:
        opened(stored, **expectations)  # type: ignore[arg-type]  # passed on as they came
    return refusal.value


def flipped(stored: bytes, bit: int) -> bytes:
    changed = bytearray(stored)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("size", [0, 1, 37])
def test_any_flipped_bit_of_a_small_artefact_is_refused(size: int) -> None:
    stored = sealed(os.urandom(size))
    for bit in range(len(stored) * 8):
        refused(flipped(stored, bit))


@pytest.mark.parametrize("size", [0, 1, 37])
def test_any_truncation_and_anything_appended_to_a_small_artefact_is_refused(size: int) -> None:
    stored = sealed(os.urandom(size))
    for end in range(len(stored)):
        refused(stored[:end])
    for extra in (1, 15, 16, 17, SEGMENT):
        refused(stored + bytes(extra))


def test_some_flipped_bits_of_a_long_artefact_are_refused() -> None:
    stored = sealed(os.urandom(FOUR_SEGMENTS))
    for bit in random.sample(range(len(stored) * 8), 300):
        refused(flipped(stored, bit))


def test_truncations_around_every_boundary_are_refused() -> None:
    stored = sealed(os.urandom(FOUR_SEGMENTS))
    for edge in (*STARTS, 136, len(stored)):
        for step in (-17, -16, -1, 0, 1, 16, 17):
            if 0 <= edge + step < len(stored):
                refused(stored[: edge + step])


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_a_flipped_bit_in_any_byte_of_a_long_artefact_is_refused() -> None:
    stored = sealed(os.urandom(FOUR_SEGMENTS))
    with descriptor_of(stored) as descriptor:
        for place in range(len(stored)):
            changed = bytes([stored[place] ^ 1 << random.randrange(8)])
            os.pwrite(descriptor, changed, place)
            with pytest.raises(ArtefactCorrupt):
                SealReader(descriptor, KEY, MODEL, header_tag=stored[64:96], stored_bytes=len(stored)).read()
            os.pwrite(descriptor, stored[place : place + 1], place)
        reader = SealReader(descriptor, KEY, MODEL, header_tag=stored[64:96], stored_bytes=len(stored))
        assert reader.size_bytes == FOUR_SEGMENTS


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_every_truncation_of_a_long_artefact_is_refused() -> None:
    stored = sealed(os.urandom(FOUR_SEGMENTS))
    with descriptor_of(stored) as descriptor:
        for end in range(len(stored) - 1, -1, -1):
            os.ftruncate(descriptor, end)
            with pytest.raises(ArtefactCorrupt):
                SealReader(descriptor, KEY, MODEL, header_tag=stored[64:96], stored_bytes=end)


def test_segments_in_another_order_are_refused() -> None:
    stored = sealed(os.urandom(FOUR_SEGMENTS))
    first, second, third, last = (
        stored[begin:end] for begin, end in zip(STARTS, [*STARTS[1:], len(stored)], strict=True)
    )
    head = stored[:96]
    assert refused(head + first + third + second + last).segment == 1
    assert refused(head + first + second + second + last).segment == 2
    assert refused(head + first + third + last).segment == 2
    assert refused(head + first + second + last + third).segment == 3


def test_a_segment_or_header_of_another_stream_is_refused_even_under_the_same_key() -> None:
    one, other = (sealed(os.urandom(FOUR_SEGMENTS)) for _ in range(2))
    second = slice(STARTS[1], STARTS[2])
    assert refused(one[: second.start] + other[second] + one[second.stop :]).segment == 1
    assert refused(one[:96] + other[96:]).segment is None
    assert refused(one[:136] + other[136:]).segment == 3


@pytest.mark.parametrize(
    "identity",
    [Identity(uuid4(), ARTEFACT, "model"), Identity(TENANT, uuid4(), "model"), Identity(TENANT, ARTEFACT, "data")],
    ids=["tenant", "artefact", "kind"],
)
def test_another_tenant_artefact_or_kind_than_expected_is_refused(identity: Identity) -> None:
    assert refused(sealed(b"weights"), identity=identity).segment is None


def test_another_data_key_is_refused_at_the_header() -> None:
    assert refused(sealed(b"weights"), key=os.urandom(32)).segment is None


def test_an_older_file_of_the_same_artefact_is_refused_by_the_databasestag_of() -> None:
    older, newer = sealed(b"version 1"), sealed(b"version 2")
    assert refused(older, header_tag=newer[64:96]).segment is None


def test_an_empty_last_segment_after_a_full_one_is_refused_though_tink_reads_it() -> None:
    plain, header, stream_header = os.urandom(FIRST), MODEL.header(LOG2), new_stream_header()
    cipher, buffer = Cipher(KEY, header, stream_header), memoryview(bytearray(SEGMENT))
    full = bytes(cipher.seal(0, False, memoryview(plain), buffer))
    empty = bytes(cipher.seal(1, True, memoryview(b""), buffer))
    stream = stream_header + full + empty
    assert independent.open_stream(KEY, LOG2, header, stream) == plain
    assert refused(header + tag_of(KEY, header, stream_header) + stream).segment == 1


def test_a_stream_that_tink_opens_under_two_keys_opens_under_the_sealed_one_only() -> None:
    header, stream_header = MODEL.header(20), new_stream_header()
    keys = [os.urandom(32), os.urandom(32)]
    streams_keys = [derive(key, stream_header[1:33], header) for key in keys]
    nonce = stream_header[33:] + bytes(4) + b"\1"
    stream = stream_header + ciphertext_for_two_keys(streams_keys[0], streams_keys[1], nonce, os.urandom(16))
    by_tink = [independent.open_stream(key, 20, header, stream) for key in keys]
    assert len(by_tink[0]) == len(by_tink[1]) == 32
    assert by_tink[0] != by_tink[1]

    stored = header + tag_of(keys[0], header, stream_header) + stream
    assert opened(stored, key=keys[0]) == by_tink[0]
    assert refused(stored, key=keys[1]).segment is None


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_unauthenticated_is_left_in_the_buffer(workers: int) -> None:
    size = FIRST + 11 * REST
    stored = flipped(sealed(b"A" * size), 8 * (136 + 500))
    with reader_of(stored) as reader:
        out = bytearray(size)
        with pytest.raises(ArtefactCorrupt) as refusal:
            reader.readinto(out, workers=workers)
    assert refusal.value.segment == 0
    assert out[:FIRST] == bytes(FIRST)


def test_nothing_unauthenticated_gets_into_a_part_of_a_segment_either() -> None:
    stored = flipped(sealed(b"A" * FIRST), 8 * (len(sealed(b"A" * FIRST)) - 1))
    with descriptor_of(stored) as descriptor, pytest.raises(ArtefactCorrupt):
        SealReader(descriptor, KEY, MODEL, header_tag=stored[64:96], stored_bytes=len(stored))
    stored = flipped(sealed(b"A" * (FIRST + REST)), 8 * 136)
    with reader_of(stored) as reader:
        out = bytearray(100)
        with pytest.raises(ArtefactCorrupt):
            reader.readinto(out, 10)
        assert out == bytes(100)
        with pytest.raises(ArtefactCorrupt):
            reader.file().read(100)


def test_a_segment_that_breaks_while_open_is_refused_when_it_is_reached() -> None:
    stored = sealed(os.urandom(FOUR_SEGMENTS))
    with descriptor_of(stored) as descriptor:
        reader = SealReader(descriptor, KEY, MODEL, header_tag=stored[64:96], stored_bytes=len(stored))
        os.pwrite(descriptor, b"\0\1\2\3", STARTS[2] + 9)
        before = FIRST + REST
        assert len(reader.read(0, before)) == before
        with pytest.raises(ArtefactCorrupt) as refusal:
            reader.read(before, 1)
        assert refusal.value.segment == 2


def test_a_file_that_shrinks_while_open_is_refused() -> None:
    stored = sealed(os.urandom(FOUR_SEGMENTS))
    with descriptor_of(stored) as descriptor:
        reader = SealReader(descriptor, KEY, MODEL, header_tag=stored[64:96], stored_bytes=len(stored))
        os.ftruncate(descriptor, STARTS[1] + 5)
        assert len(reader.read(0, 10)) == 10
        with pytest.raises(ArtefactCorrupt) as refusal:
            reader.read()
        assert refusal.value.segment == 1


def test_a_refusal_tells_the_artefact_and_the_segment_and_nothing_else() -> None:
    assert str(ArtefactCorrupt(ARTEFACT, 3)) == f"artefact {ARTEFACT} is corrupt: segment 3"
    assert str(ArtefactCorrupt(ARTEFACT)) == f"artefact {ARTEFACT} is corrupt: header"
    refusal = refused(flipped(sealed(b"secret weights"), 8 * 140))
    assert refusal.__cause__ is None
    assert refusal.__context__ is None


def test_who_has_no_key_can_still_tell_that_a_file_is_what_its_sealer_says() -> None:
    stored = sealed(bytes(FOUR_SEGMENTS))
    with descriptor_of(stored) as descriptor:
        assert (
            inspect(descriptor, MODEL, header_tag=stored[64:96], stored_bytes=len(stored)).size_bytes == FOUR_SEGMENTS
        )
        for identity, tag, length in (
            (Identity(TENANT, uuid4(), "model"), stored[64:96], len(stored)),
            (MODEL, bytes(32), len(stored)),
            (MODEL, stored[64:96], len(stored) - 1),
        ):
            with pytest.raises(ArtefactCorrupt):
                inspect(descriptor, identity, header_tag=tag, stored_bytes=length)

"""Sealing: pieces of any size, writers that take little or fail."""

import os
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealing import SealReader, SealWriter, new_data_key, seal_memory
from tests.depth import examples
from tests.sealing.artefacts import FIRST, KEY, LOG2, MODEL, REST, SEGMENT, descriptor_of, opened, sealed


@settings(max_examples=examples(60))
@given(st.integers(0, 3 * SEGMENT), st.lists(st.integers(0, 2 * SEGMENT), max_size=8))
def test_the_pieces_in_which_it_comes_do_not_matter(size: int, cuts: list[int]) -> None:
    plain = os.urandom(size)
    stored = bytearray()
    writer = SealWriter(stored.extend, KEY, MODEL, segment_log2=LOG2)
    begin = 0
    for cut in [*cuts, size]:
        writer.write(plain[begin : begin + cut])
        begin += cut
    writer.write(plain[begin:])
    writer.close()
    assert opened(bytes(stored)) == plain


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=9))
def test_a_target_that_takes_little_at_a_time_gets_all(plain: bytes, steps: list[int]) -> None:
    stored = bytearray()
    takes: Iterator[int] = iter(steps * 500)

    def write(piece: memoryview) -> int:
        taken = piece[: next(takes)]
        stored.extend(taken)
        return len(taken)

    writer = SealWriter(write, KEY, MODEL)
    writer.write(plain)
    writer.close()
    assert opened(bytes(stored)) == plain


def test_the_head_is_out_before_any_content() -> None:
    stored = bytearray()
    writer = SealWriter(stored.extend, KEY, MODEL)
    assert (len(stored), writer.stored_bytes, writer.size_bytes) == (136, 136, 0)
    assert stored[64:96] == writer.header_tag


def test_counts_tell_what_is_sealed_so_far() -> None:
    writer = SealWriter(lambda piece: None, KEY, MODEL, segment_log2=LOG2)
    writer.write(bytes(FIRST + REST + 1))
    writer.close()
    assert writer.size_bytes == FIRST + REST + 1
    assert writer.stored_bytes == 136 + FIRST + REST + 1 + 3 * 16


def test_arrays_of_wider_items_are_sealed_as_their_bytes() -> None:
    wide = memoryview(bytes(range(256))).cast("I")
    stored = bytearray()
    writer = SealWriter(stored.extend, KEY, MODEL)
    writer.write(wide)
    writer.close()
    assert opened(bytes(stored)) == bytes(range(256))


def test_after_a_failed_write_nothing_more_is_sealed_under_that_key() -> None:
    def full(piece: memoryview) -> None:
        if len(piece) > 136:
            raise OSError(28, "No space left on device")

    writer = SealWriter(full, KEY, MODEL, segment_log2=LOG2)
    with pytest.raises(OSError, match="No space left"):
        writer.write(bytes(2 * SEGMENT))
    with pytest.raises(ValueError, match="new data key"):
        writer.write(b"more")
    with pytest.raises(ValueError, match="new data key"):
        writer.close()


def test_a_target_that_takes_nothing_fails_the_sealing() -> None:
    with pytest.raises(OSError, match="nothing was written"):
        SealWriter(lambda piece: 0, KEY, MODEL)


def test_a_closed_sealing_takes_nothing_more() -> None:
    writer = SealWriter(lambda piece: None, KEY, MODEL)
    assert not writer.complete
    writer.close()
    assert writer.complete
    with pytest.raises(ValueError, match="has ended"):
        writer.write(b"more")
    with pytest.raises(ValueError, match="has ended"):
        writer.close()


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_data_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SealWriter(lambda piece: None, key, MODEL)


def test_two_sealings_of_the_same_content_have_nothing_in_common_behind_the_identity() -> None:
    first, second = (sealed(b"same content", key=new_data_key()) for _ in range(2))
    assert first[:64] == second[:64]
    assert first[64:96] != second[64:96]
    assert first[97:136] != second[97:136]
    assert first[136:] != second[136:]


def test_sealing_takes_the_memory_of_two_segments_however_long_the_stream() -> None:
    piece = bytes(3 << 20)
    tracemalloc.start()
    try:
        writer = SealWriter(lambda sealed: None, KEY, MODEL)
        for _ in range(10):
            writer.write(piece)
        writer.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (2 << 20) + (64 << 10)


def test_sealing_onto_a_file_that_has_content_is_refused() -> None:
    with descriptor_of(b"an older, longer file") as target:
        with pytest.raises(ValueError, match="not empty"):
            seal_memory(b"plain", target, KEY, MODEL)
        assert os.pread(target, 100, 0) == b"an older, longer file"


@settings(max_examples=examples(40))
@given(st.integers(0, 14 * SEGMENT), st.integers(1, 4))
def test_workers_side_by_side_seal_what_one_opens(size: int, workers: int) -> None:
    plain = os.urandom(size)
    with descriptor_of(b"") as target:
        tag = seal_memory(plain, target, KEY, MODEL, segment_log2=LOG2, workers=workers)
        stored_bytes = os.fstat(target).st_size
        assert SealReader(target, KEY, MODEL, header_tag=tag, stored_bytes=stored_bytes).read() == plain

"""Opening: any range, any number of workers, threads that share a reader, and the plaintext as a file."""

import csv
import io
import os
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealing import ArtefactCorrupt
from tests.depth import examples
from tests.sealing.artefacts import BOUNDARIES, FIRST, REST, SEGMENT, descriptor_of, reader_of, sealed

PLAIN = os.urandom(11 * SEGMENT + 777)
STORED = sealed(PLAIN)
RANGES = st.tuples(st.integers(0, len(PLAIN) + 9), st.integers(0, len(PLAIN)), st.integers(1, 3))


@settings(max_examples=examples(80))
@given(st.lists(RANGES, min_size=1, max_size=5))
def test_any_range_by_any_number_of_workers_is_that_part_of_the_plaintext(ranges: list[tuple[int, int, int]]) -> None:
    with reader_of(STORED) as reader:
        for offset, length, workers in ranges:
            out = bytearray(length)
            got = reader.readinto(out, offset, workers=workers)
            assert got == max(0, min(length, len(PLAIN) - offset))
            assert out[:got] == PLAIN[offset : offset + length]
            assert not any(out[got:])


@settings(max_examples=examples(60))
@given(st.sampled_from(BOUNDARIES), st.integers(0, 4 * SEGMENT), st.integers(0, 4 * SEGMENT))
def test_a_range_of_an_artefact_that_ends_at_a_boundary_is_right(size: int, offset: int, length: int) -> None:
    plain = PLAIN[:size]
    with reader_of(sealed(plain)) as reader:
        assert reader.size_bytes == size
        assert reader.read(offset, length) == plain[offset : offset + length]


@settings(max_examples=examples(60))
@given(st.sampled_from([*BOUNDARIES, len(PLAIN)]), st.integers(1, 3))
def test_a_copy_is_the_whole_plaintext(size: int, workers: int) -> None:
    with reader_of(sealed(PLAIN[:size])) as reader, descriptor_of(b"") as copy:
        reader.copy_to(copy, workers=workers)
        assert os.pread(copy, len(PLAIN) + 1, 0) == PLAIN[:size]


def test_a_copy_has_nothing_of_a_segment_that_is_not_authentic() -> None:
    broken = bytearray(STORED)
    broken[5 * SEGMENT + 99] ^= 1
    with reader_of(bytes(broken)) as reader, descriptor_of(b"") as copy:
        with pytest.raises(ArtefactCorrupt):
            reader.copy_to(copy)
        kept = os.pread(copy, len(PLAIN), 0)
    assert PLAIN.startswith(kept)
    assert len(kept) <= FIRST + 4 * REST


def test_an_offset_before_the_beginning_is_refused() -> None:
    with reader_of(STORED) as reader, pytest.raises(ValueError, match="negative"):
        reader.read(-1, 5)


def test_threads_share_one_reader() -> None:
    steps = [(offset, 30_000) for offset in range(0, len(PLAIN), 9_973)]
    with reader_of(STORED) as reader, ThreadPoolExecutor(4) as pool:
        for (offset, length), got in zip(steps, pool.map(lambda step: reader.read(*step), steps), strict=True):
            assert got == PLAIN[offset : offset + length]


@settings(max_examples=examples(60))
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.integers(0, 3 * SEGMENT)),
            st.tuples(st.just("seek"), st.integers(0, len(PLAIN) + 9)),
            st.tuples(st.just("skip"), st.integers(-SEGMENT, SEGMENT)),
            st.tuples(st.just("from the end"), st.integers(-len(PLAIN), 9)),
        ),
        max_size=12,
    )
)
def test_the_file_behaves_as_a_file_in_memory_does(steps: list[tuple[str, int]]) -> None:
    with reader_of(STORED) as reader:
        ours, model = io.BufferedReader(reader.file()), io.BytesIO(PLAIN)
        for step, amount in steps:
            if step == "read":
                assert ours.read(amount) == model.read(amount)
            elif step == "seek":
                assert ours.seek(amount) == model.seek(amount)
            elif step == "from the end":
                assert ours.seek(amount, os.SEEK_END) == model.seek(amount, os.SEEK_END)
            elif model.tell() + amount >= 0:
                assert ours.seek(amount, os.SEEK_CUR) == model.seek(amount, os.SEEK_CUR)
            assert ours.tell() == model.tell()


def test_a_zip_and_a_table_are_read_straight_from_an_artefact() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("cats/1.png", PLAIN[: 2 * SEGMENT])
        archive.writestr("rows.csv", "a,b\n1,2\n")
    with reader_of(sealed(packed.getvalue())) as reader, zipfile.ZipFile(reader.file()) as archive:
        assert archive.read("cats/1.png") == PLAIN[: 2 * SEGMENT]
        with archive.open("rows.csv") as rows:
            assert list(csv.reader(io.TextIOWrapper(rows))) == [["a", "b"], ["1", "2"]]


def test_the_file_cannot_be_written_nor_used_once_closed() -> None:
    with reader_of(STORED) as reader:
        file = reader.file()
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        with pytest.raises(OSError, match="before the beginning"):
            file.seek(-1)
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.read(1)


def test_reading_into_wider_items_fills_their_bytes() -> None:
    with reader_of(STORED) as reader:
        out = bytearray(400)
        assert reader.readinto(memoryview(out).cast("d"), FIRST - 100) == 400
        assert out == PLAIN[FIRST - 100 : FIRST + 300]


def test_reading_takes_the_memory_of_two_segments_however_long_the_artefact() -> None:
    stored = sealed(bytes(12 << 20), log2=20)
    out = bytearray(12 << 20)
    with reader_of(stored) as reader:
        tracemalloc.start()
        try:
            reader.readinto(out)
            reader.readinto(memoryview(out)[5:-5], 5)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < (2 << 20) + (64 << 10)

"""Segment arithmetic: the same forwards and backwards, without gaps, and the page's own numbers."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealing import HEAD_BYTES, Identity, Segments
from tests.sealing.artefacts import MODEL


@given(st.integers(16, 22), st.integers(0, 1 << 26))
def test_a_stored_length_tells_the_plaintext_length(log2: int, size: int) -> None:
    plan = Segments.of_plaintext(log2, size)
    assert plan.is_valid
    assert Segments.of_stored(log2, plan.stored_bytes) == plan


@given(st.integers(16, 22), st.integers(0, 1 << 24))
def test_a_length_is_valid_just_when_some_plaintext_has_it(log2: int, stored: int) -> None:
    plan = Segments.of_stored(log2, stored)
    assert plan.is_valid == (plan.size_bytes >= 0 and Segments.of_plaintext(log2, plan.size_bytes) == plan)


@given(st.integers(16, 22), st.integers(0, 1 << 24))
def test_segments_lie_end_to_end_in_plaintext_and_file(log2: int, size: int) -> None:
    plan = Segments.of_plaintext(log2, size)
    plain_end, stored_end = 0, HEAD_BYTES
    for index in range(plan.count):
        plain, stored = plan.plain(index), plan.stored(index)
        assert (plain[0], stored[0]) == (plain_end, stored_end)
        assert stored[1] - stored[0] == plain[1] - plain[0] + 16
        if plain[0] < plain[1]:
            assert plan.holding(plain[0]) == plan.holding(plain[1] - 1) == index
        plain_end, stored_end = plain[1], stored[1]
    assert (plain_end, stored_end) == (size, plan.stored_bytes)


@pytest.mark.parametrize(
    ("size", "stored", "count"), [(0, 152, 1), (1_048_520, 1_048_672, 1), (1_048_521, 1_048_689, 2)]
)
def test_the_pages_examples_hold(size: int, stored: int, count: int) -> None:
    plan = Segments.of_plaintext(20, size)
    assert (plan.stored_bytes, plan.count) == (stored, count)


def test_a_payload_of_more_segments_than_four_bytes_can_number_is_refused() -> None:
    longest = (1 << 32) * ((1 << 16) - 16) - 40
    assert Segments.of_plaintext(16, longest).count == 1 << 32
    with pytest.raises(ValueError, match="too long"):
        Segments.of_plaintext(16, longest + 1)
    assert not Segments.of_stored(16, Segments.of_plaintext(16, longest).stored_bytes + 17).is_valid


@pytest.mark.parametrize("kind", ["", "a" * 17, "mo del", "modèl", "model1", "model\0"])
def test_a_kind_that_is_not_1_to_16_ascii_letters_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        Identity(uuid4(), uuid4(), kind)


@pytest.mark.parametrize("log2", [0, 15, 23])
def test_segments_outside_64_kib_to_4_mib_are_refused(log2: int) -> None:
    with pytest.raises(ValueError, match="segments"):
        MODEL.header(log2)

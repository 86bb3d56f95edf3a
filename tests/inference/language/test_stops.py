"""What is sent of a text that comes in pieces: all up to the first stop string, no half character, nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.language.stops import Text

# Few letters, so that stop strings overlap each other and the text; and characters of two, three and four bytes.
LETTERS = st.text(alphabet="ab\n€é🙂", max_size=24)
WHOLE = st.one_of(
    LETTERS.map(str.encode),
    st.binary(max_size=24),
    st.lists(st.sampled_from((b"a", b"b", b"\xe2", b"\x82", b"\xac", b"\xf0", b"\xff")), max_size=16).map(b"".join),
)
STOPS = st.lists(st.text(alphabet="ab€é🙂", min_size=1, max_size=5), max_size=4)
CUTS = st.lists(st.integers(0, 24), max_size=24)


def pieces(whole: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in pairwise(places)]


def first_stop(whole: bytes, stops: Sequence[str]) -> int | None:
    """Where the stop string begins that is complete first; of two that end together, the longer one."""
    for end in range(len(whole) + 1):
        ending = [end - len(stop.encode()) for stop in stops if whole[:end].endswith(stop.encode())]
        if ending:
            return min(ending)
    return None


def sent(whole: bytes, cuts: Sequence[int], stops: Sequence[str]) -> tuple[list[str], bool]:
    text = Text(stops)
    parts = [text.add(piece) for piece in pieces(whole, cuts)]
    return [*parts, text.finish()], text.stopped


@given(whole=WHOLE, cuts=CUTS, stops=STOPS)
@example(whole=b"xaab", cuts=[2, 3], stops=["aab", "b"])
@example(whole=b"abbb", cuts=[1, 2, 3], stops=["abbb", "bb"])
@example(whole=b"abbb", cuts=[], stops=["abbb", "bb"])
@example(whole=b"abab", cuts=[], stops=["b", "ab"])
@example(whole="€".encode(), cuts=[1, 2], stops=["é"])
@example(whole=b"\xe2\x82a", cuts=[1, 2], stops=["a"])
def test_what_is_sent_is_the_text_before_the_first_stop_string_however_it_is_cut(
    whole: bytes, cuts: Sequence[int], stops: Sequence[str]
) -> None:
    at = first_stop(whole, stops)
    parts, stopped = sent(whole, cuts, stops)
    assert stopped == (at is not None)
    assert "".join(parts) == whole[:at].decode("utf-8", "replace")


@given(whole=WHOLE, cuts=CUTS, stops=STOPS, more=st.binary(max_size=8))
def test_what_was_sent_is_the_beginning_of_the_text_whatever_comes_next(
    whole: bytes, cuts: Sequence[int], stops: Sequence[str], more: bytes
) -> None:
    text = Text(stops)
    early = "".join(text.add(piece) for piece in pieces(whole, cuts))
    for stop in ("", *stops):
        later = whole + more + stop.encode()
        end = first_stop(later, stops)
        assert later[:end].decode("utf-8", "replace").startswith(early)


@given(text=LETTERS, cuts=CUTS)
def test_whole_characters_are_sent_only_and_each_as_soon_as_it_is_whole(text: str, cuts: Sequence[int]) -> None:
    whole, come, said = text.encode(), 0, ""
    sending = Text()
    for piece in pieces(whole, cuts):
        come += len(piece)
        said += sending.add(piece)
        assert said == whole[:come].decode("utf-8", "ignore")


@given(whole=LETTERS, stops=STOPS)
def test_no_more_is_held_back_than_may_begin_a_stop_string(whole: str, stops: Sequence[str]) -> None:
    text = Text(stops)
    said = ""
    for come, letter in enumerate(whole, start=1):
        said += text.add(letter.encode())
        if text.stopped:
            return
        held = whole[len(said) : come]
        assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("stops", "given", "expected"),
    [
        (["\n\n"], ["one\n", "\ntwo"], ["one", ""]),
        (["END"], ["the E", "N", "Demo"], ["the ", "", ""]),
        (["END"], ["the E", "N", "d"], ["the ", "", "ENd"]),
        (["STOP", "</s>"], ["a<", "/", "s", ">b"], ["a", "", "", ""]),
        (["🙂"], ["a🙂b"], ["a"]),
        (["aa"], ["a", "b", "a", "a"], ["", "ab", "", ""]),
    ],
)
def test_pieces_come_as_documented(stops: list[str], given: list[str], expected: list[str]) -> None:
    text = Text(stops)
    assert [text.add(piece.encode()) for piece in given] == expected


def test_half_a_character_at_the_end_becomes_a_replacement_character() -> None:
    text = Text()
    assert (text.add(b"a\xf0\x9f"), text.finish()) == ("a", "\ufffd")


def test_half_a_character_before_a_stop_string_becomes_a_replacement_character() -> None:
    text = Text(["b"])
    assert (text.add(b"a\xf0\x9f") + text.add(b"b"), text.finish()) == ("a\ufffd", "")


def test_nothing_comes_after_a_stop_string() -> None:
    text = Text(["b"])
    assert [text.add(piece) for piece in (b"ab", b"c", b"\xe2\x82\xac")] == ["a", "", ""]
    assert text.finish() == ""


def test_what_was_held_back_is_sent_at_the_end() -> None:
    text = Text(["stop"])
    assert (text.add(b"go st"), text.finish(), text.stopped) == ("go ", "st", False)


def test_an_empty_stop_string_stops_nothing() -> None:
    text = Text(["", "b"])
    assert (text.add(b"a"), text.add(b"b"), text.stopped) == ("a", "", True)

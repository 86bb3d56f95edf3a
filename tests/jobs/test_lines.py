"""The lines of a batch's file: read in bounded memory, each wrong one named, whatever the bytes are."""

from __future__ import annotations

import io
import json
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.jobs.lines import MOST_LINE_BYTES, MOST_LINES, MOST_PROBLEMS, Broken, Line, lines, survey
from tests.depth import examples

CHAT = "/v1/chat/completions"


def line(id: Any = "a", **changes: Any) -> dict[str, Any]:
    return {"custom_id": id, "method": "POST", "url": CHAT, "body": {"model": "m", "messages": []}} | changes


def file(*written: Any) -> BinaryIO:
    return io.BytesIO(b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in written))


def read(*written: Any) -> list[Line | Broken]:
    return list(lines(file(*written), CHAT, lambda: False))


def surveyed(*written: Any) -> list[tuple[str, int | None]]:
    found = survey(lines(file(*written), CHAT, lambda: False))
    return [(problem["code"], problem["line"]) for problem in found.problems]


def test_each_line_is_a_request_with_its_number() -> None:
    assert read(b"\xef\xbb\xbf" + json.dumps(line("a")).encode(), b"", b"  ", line("b"), b"") == [
        Line(1, "a", line()["body"]),
        Line(4, "b", line()["body"]),
    ]


@pytest.mark.parametrize(
    ("written", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (b'{"custom_id": "\\ud800"}', "invalid_json_line", None),
        ({"method": "POST"}, "missing_required_parameter", "custom_id"),
        (line(5), "invalid_value", "custom_id"),
        (line(""), "invalid_value", "custom_id"),
        (line("a" * 513), "invalid_value", "custom_id"),
        (line(method="GET"), "invalid_value", "method"),
        (line(body=None), "invalid_value", "body"),
        (line(body={}), "invalid_value", "body.model"),
        (line(body={"model": 1}), "invalid_value", "body.model"),
        (line(bodi={}), "unknown_parameter", "bodi"),
        (line(url="/v1/embeddings"), "mismatched_url", "url"),
        (line(url=None), "mismatched_url", "url"),
    ],
)
def test_a_broken_line_is_named(written: Any, code: str, param: str | None) -> None:
    good, broken = read(line("good"), written)
    assert isinstance(good, Line)
    assert isinstance(broken, Broken)
    assert (broken.number, broken.code, broken.param) == (2, code, param)
    assert broken.problem()["message"].startswith("line 2: ")
    assert len(broken.message) < 300


def test_a_line_that_is_too_long_is_skipped_and_the_next_is_read() -> None:
    long, last = line("a", body={"model": "m", "text": "x" * MOST_LINE_BYTES}), line("z")
    first, second = read(long, last)
    assert isinstance(first, Broken)
    assert (first.number, first.code) == (1, "line_too_long")
    assert second == Line(2, "z", last["body"])
    exact = json.dumps(line("a", body={"model": "m", "text": ""})).encode()
    full = exact.replace(b'""', b'"' + b"x" * (MOST_LINE_BYTES - len(exact)) + b'"')
    assert isinstance(read(full)[0], Line)


def test_a_file_is_wrong_as_a_whole_where_its_lines_contradict_one_another() -> None:
    assert surveyed(line("a"), line("b"), line("a")) == [("duplicate_custom_id", 3)]
    assert surveyed(line("a"), line("b", body={"model": "n"})) == [("mismatched_model", 2)]
    assert surveyed(line("a"), line("b", url="/v1/embeddings")) == [("mismatched_url", 2)]
    assert surveyed(line("a"), b"x", line("b")) == []
    assert surveyed(b"x", b"y") == [("invalid_json_line", 1), ("invalid_json_line", 2)]
    assert surveyed(b"") == [("empty_file", None)]


def test_no_more_problems_are_told_than_anybody_reads() -> None:
    assert len(surveyed(*[line("a")] * 1000)) == MOST_PROBLEMS
    assert len(surveyed(*[b"x"] * 1000)) == MOST_PROBLEMS


def test_a_file_has_a_bound_of_lines() -> None:
    many = b"\n".join(
        b'{"custom_id":"%d","method":"POST","url":"%s","body":{"model":"m"}}' % (n, CHAT.encode())
        for n in range(MOST_LINES)
    )
    assert surveyed(many) == []
    assert surveyed(many, line("one more")) == [("too_many_lines", None)]


@pytest.mark.parametrize("written", [[line(str(n)) for n in range(1000)], [b""] * 1000], ids=["lines", "blank lines"])
def test_nothing_more_is_read_where_nobody_wants_it(written: list[Any]) -> None:
    given = file(*written)
    assert len(list(lines(given, CHAT, lambda: True))) < 100
    assert given.read()


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "custom_id": JSON | st.sampled_from(["a", "b"]),
        "method": JSON | st.just("POST"),
        "url": JSON | st.just(CHAT),
        "body": JSON | st.fixed_dictionaries({"model": JSON | st.just("m")}),
        "x": JSON,
    },
)


@settings(max_examples=examples(300))
@given(st.lists(st.binary(max_size=30) | PARTS.map(lambda given: json.dumps(given).encode()), max_size=8))
def test_no_bytes_make_anything_but_lines_and_problems(written: list[bytes]) -> None:
    found = read(*written)
    numbers = [one.number for one in found]
    assert numbers == sorted(set(numbers))
    for one in found:
        assert isinstance(one, Line) or json.dumps(one.problem())
    made = survey(iter(found))
    assert made.problems or made.model is not None

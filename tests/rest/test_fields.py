"""Strict documents: one JSON type a field, every problem at once, exact pointers."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework import serializers

from strongroom import ids
from strongroom.errors import Invalid
from strongroom.rest import waiting
from strongroom.rest.fields import Flag, Many, Moment, PrefixedId, StrictSerializer, Text, Whole


class Inner(StrictSerializer):
    size = Whole(min_value=1, max_value=9)
    on = Flag(default=False)


class Document(StrictSerializer):
    name = Text(max_length=5)
    inner = Inner(required=False)
    many = Inner(many=True, required=False)
    job = PrefixedId("job", required=False)
    at = Moment(required=False)
    kind = serializers.ChoiceField(["train", "check"], required=False)
    id = Text(read_only=True)


def problems(data: Any) -> dict[str, tuple[str, str, str | None]]:
    with pytest.raises(Invalid) as refused:
        Document.read(data)
    return {p.path: (p.code, p.message, p.hint) for p in refused.value.errors}


def test_a_right_document_is_read() -> None:
    job = ids.new()
    read = Document.read(
        {
            "name": "a b ",
            "inner": {"size": 9, "on": True},
            "many": [{"size": 1}],
            "job": ids.text("job", job),
            "at": "2026-11-24T23:40:00.123+01:00",
        }
    )
    assert read == {
        "name": "a b ",
        "inner": {"size": 9, "on": True},
        "many": [{"size": 1, "on": False}],
        "job": job,
        "at": datetime(2026, 11, 24, 22, 40, 0, 123000, tzinfo=UTC),
    }


def test_unknown_fields_are_refused_at_every_depth() -> None:
    found = problems({"nam": "x", "inner": {"sise": 1}, "many": [{"size": 1}, {"size": 1, "a/b~": 2}], "id": "x"})
    assert found["/nam"] == ("extra_forbidden", "is not a known field", "did you mean 'name'?")
    assert found["/inner/sise"][2] == "did you mean 'size'?"
    assert found["/many/1/a~1b~0"][0] == "extra_forbidden"
    assert found["/id"][0] == "extra_forbidden"
    assert found["/name"] == ("required", "is required", None)
    assert found["/inner/size"][0] == "required"


def test_unknown_fields_alone_have_a_code_of_their_own() -> None:
    with pytest.raises(Invalid) as refused:
        Document.read({"name": "x", "zzz": 1})
    assert refused.value.code == "extra_forbidden"
    assert refused.value.errors[0].hint == "known are: at, inner, job, kind, many, name"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", 5, "must be a text"),
        ("name", True, "must be a text"),
        ("name", None, "must not be null"),
        ("name", "", "must not be empty"),
        ("name", "123456", "must have at most 5 characters"),
        ("name", "a\x00", "must not hold a null character"),
        ("inner", 5, "must be an object"),
        ("inner", [], "must be an object"),
        ("many", {}, "must be a list"),
        ("job", "job_x", "is no id of this kind"),
        ("job", 5, "is no id of this kind"),
        ("at", "2026-11-24", "must be a time"),
        ("at", "2026-11-24T22:40:00", "must be a time"),
        ("at", "2026-13-24T22:40:00Z", "must be a time"),
        ("at", "0001-01-01T00:00:00+23:00", "must be a time"),
        ("at", 5, "must be a time"),
        ("kind", "trian", "is none of its choices"),
        ("kind", {}, "is none of its choices"),
    ],
)
def test_a_wrong_value_is_told_in_words(field: str, value: object, words: str) -> None:
    assert problems({"name": "x"} | {field: value})[f"/{field}"][1] == words


@pytest.mark.parametrize(
    ("size", "words", "hint"),
    [
        (0, "is out of range", "1 to 9"),
        (10, "is out of range", "1 to 9"),
        ("5", "must be a whole number", None),
        (5.0, "must be a whole number", None),
        (True, "must be a whole number", None),
        (10**400, "is out of range", "1 to 9"),
    ],
)
def test_a_number_is_a_number_in_its_range(size: object, words: str, hint: str | None) -> None:
    assert problems({"name": "x", "inner": {"size": size}})["/inner/size"][1:] == (words, hint)


def test_an_absurd_body_costs_little_and_its_answer_is_short() -> None:
    found = problems({"x" * 1_000_000: 1} | {f"field{number}": 1 for number in range(100_000)})
    assert len(found) <= 2 * 50
    assert all(len(path) < 200 for path in found)


class Listed(StrictSerializer):
    names = Many(child=Text(), max_length=3)


def test_a_list_is_counted_before_its_entries_are_read() -> None:
    assert Listed.read({"names": ["a", "b"]}) == {"names": ["a", "b"]}
    with pytest.raises(Invalid) as refused:
        Listed.read({"names": [5] * 100_000})
    assert [(p.path, p.message) for p in refused.value.errors] == [("/names", "must have at most 3 entries")]


@pytest.mark.parametrize("on", ["true", 1, 0, None, [], {}])
def test_a_flag_is_true_or_false_only(on: object) -> None:
    assert "/inner/on" in problems({"name": "x", "inner": {"size": 1, "on": on}})


@pytest.mark.parametrize("body", [None, 5, "x", [], True])
def test_a_body_that_is_no_object_is_told_so(body: object) -> None:
    assert problems(body)[""][1] in {"must be an object", "must not be null"}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Document().fields, "size", "on", "x/~"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(_json)
def test_any_json_is_read_or_refused_with_pointers(data: Any) -> None:
    pointers = _pointers(data)
    assert all(pointer == "" or pointer.startswith("/") for pointer in pointers)


def _pointers(data: Any) -> list[str]:
    try:
        Document.read(data)
    except Invalid as refused:
        return [problem.path for problem in refused.errors]
    return []


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_goes_out_in_milliseconds_and_comes_back(value: datetime) -> None:
    text = Moment().to_representation(value)
    assert len(text) == 24
    assert text.endswith("Z")
    assert Moment().run_validation(text) == value.replace(microsecond=value.microsecond // 1000 * 1000)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None), ("", None), ("wait=5", 5), ("wait=60", 60), ("wait=600", 60), ("wait=0", 0), ("WAIT = 5", 5),
        ('wait="5"', 5), ("respond-async, wait=10", 10), ("wait=x", None), ("wait=-1", None), ("wait", None),
        ("await=5", None), ("wait=5; strict", 5), ("wait=99999999999", None),
    ],
)  # fmt: skip
def test_prefer_wait_is_read_as_rfc_7240_has_it(prefer: str | None, seconds: int | None) -> None:
    assert waiting.seconds(prefer) == seconds

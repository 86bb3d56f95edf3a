"""The document of a generate frame: read as it was written, and nothing else is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import ProtocolError
from inference.language.requests import MOST_CHOICES, Constraint, Generate, Sampling
from tests.depth import examples

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1),
    top_k=st.integers(0, 10**6),
    min_p=st.floats(0, 1),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=4).map(tuple),
    presence_penalty=NUMBERS,
    frequency_penalty=NUMBERS,
    repetition_penalty=st.floats(0.1, 5),
    logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), NUMBERS, max_size=5),
    logprobs=st.none() | st.integers(0, 20),
    constraint=st.none()
    | st.builds(Constraint, st.sampled_from(("json_object", "json_schema", "grammar", "tool")), st.text()),
    ignore_eos=st.booleans(),
)
MESSAGES = st.lists(st.dictionaries(st.text(), st.text() | st.integers(-9, 9) | st.none()), max_size=3).map(tuple)
GENERATES = st.builds(
    Generate,
    messages=st.none() | MESSAGES,
    prompt=st.none() | st.text() | st.lists(st.integers(-(2**63), 2**63 - 1)).map(tuple),
    tools=MESSAGES,
    sampling=SAMPLINGS,
    n=st.integers(1, MOST_CHOICES),
    echo=st.booleans(),
)


@settings(max_examples=examples(40))
@given(GENERATES)
def test_it_is_read_as_it_was_written(generate: Generate) -> None:
    assert Generate.from_json(generate.to_json()) == generate


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document: dict[str, Any] = orjson.loads(Generate(prompt="a").to_json())
    change(document)
    return orjson.dumps(document)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"7", b'"text"', b"{}", b"\xff", b'{"sampling": {}}', b"[" * 2000], ids=repr
)
def test_bytes_that_are_no_such_document_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Generate.from_json(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", -1),
        ("n", 17),
        ("n", 10**9),
        ("n", "1"),
        ("n", 1.5),
        ("n", True),
        ("echo", 1),
        ("prompt", 7),
        ("prompt", {}),
        ("prompt", ["a"]),
        ("prompt", [1.5]),
        ("prompt", [None]),
        ("messages", ["a"]),
        ("messages", "ab"),
        ("messages", 7),
        ("messages", {"role": "user"}),
        ("tools", None),
        ("tools", [7]),
        ("unknown", 1),
    ],
)
def test_a_field_of_another_kind_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError):
        Generate.from_json(changed(lambda document: document.update({field: value})))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("max_tokens", "5"),
        ("max_tokens", 1.5),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("temperature", None),
        ("temperature", True),
        ("top_p", -1),
        ("top_p", [1]),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_k", "a"),
        ("min_p", -1),
        ("seed", 1.5),
        ("seed", "a"),
        ("stop", "abc"),
        ("stop", [1]),
        ("stop", ["a"] * 18),
        ("stop", ["a" * 300]),
        ("stop", None),
        ("presence_penalty", "a"),
        ("frequency_penalty", None),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("logit_bias", []),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {"1": "b"}),
        ("logit_bias", {"1": None}),
        ("logit_bias", {str(token): 1 for token in range(1025)}),
        ("logprobs", -1),
        ("logprobs", 21),
        ("logprobs", "a"),
        ("constraint", "json_object"),
        ("constraint", {"kind": "regex", "text": "a"}),
        ("constraint", {"kind": "grammar", "text": 7}),
        ("ignore_eos", 1),
        ("unknown", 1),
    ],
)
def test_a_sampling_of_another_kind_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError):
        Generate.from_json(changed(lambda document: document["sampling"].update({field: value})))


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity"])
@pytest.mark.parametrize("field", ["temperature", "top_p", "presence_penalty"])
def test_a_number_that_is_none_is_refused(field: str, number: bytes) -> None:
    body = changed(lambda document: document["sampling"].update({field: 77.25})).replace(b"77.25", number)
    with pytest.raises(ProtocolError):
        Generate.from_json(body)


@given(
    field=st.sampled_from(sorted(Sampling.__slots__)),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
)
def test_whatever_stands_in_a_field_it_is_read_or_refused(field: str, value: Any) -> None:
    with suppress(ProtocolError):
        Generate.from_json(changed(lambda document: document["sampling"].update({field: value})))

"""Whatever a caller sends, a face answers inputs or one of our errors; never another exception."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.protocol import Array
from inference.signature import Signature, Tensor
from strongroom.edge import core, native
from strongroom.edge.open_inference import Asked
from strongroom.errors import StrongroomError
from tests.depth import examples
from tests.edge.test_limits import served

pytestmark = pytest.mark.slow

SIGNATURE = Signature((Tensor("x", "FP32", (-1, 2)), Tensor("t", "BYTES", (-1, 1))), (Tensor("y", "FP32", (-1, 1)),))
SERVED = served(interface=SIGNATURE)

NAMES = st.sampled_from(
    ["inputs", "rows", "x", "t", "name", "shape", "datatype", "data", "id", "outputs", "parameters"]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.sampled_from(["x", "t", "y", "FP32", "BYTES"]),
)
ANY = st.recursive(LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(NAMES, v, max_size=4), max_leaves=20)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "t", "z"]) | LEAVES,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | ANY,
        "datatype": st.sampled_from(["FP32", "BYTES"]) | LEAVES,
        "data": st.lists(st.floats(-1, 1), max_size=6) | st.lists(st.text(max_size=2), max_size=4) | ANY,
        "parameters": ANY,
    },
)
OUTPUTS = ANY | st.lists(
    st.fixed_dictionaries({"name": st.just("y") | LEAVES}, optional={"parameters": ANY}), max_size=2
)
INFER = st.fixed_dictionaries(
    {}, optional={"inputs": st.lists(TENSOR, max_size=3) | ANY, "id": LEAVES, "outputs": OUTPUTS, "parameters": ANY}
)
PREDICT = st.fixed_dictionaries(
    {}, optional={"inputs": st.dictionaries(st.sampled_from(["x", "t", "z"]), ANY) | ANY, "rows": ANY}
)


def fits(found: core.Inputs) -> bool:
    return isinstance(found, core.Raw) or SIGNATURE.check(found) > 0


@settings(max_examples=examples(200))
@given(INFER | ANY)
def test_the_open_inference_face_reads_or_refuses(document: Any) -> None:
    with suppress(StrongroomError):
        assert fits(Asked(json.dumps(document).encode()).read(SERVED))


@settings(max_examples=examples(200))
@given(PREDICT | ANY)
def test_the_native_face_reads_or_refuses(document: Any) -> None:
    with suppress(StrongroomError):
        assert fits(native.read_json(json.dumps(document).encode(), SERVED))


@given(st.binary(max_size=200))
def test_bytes_that_are_anything_are_read_or_refused(body: bytes) -> None:
    for read in (lambda: Asked(body).read(SERVED), lambda: native.read_json(body, SERVED)):
        with suppress(StrongroomError):
            assert fits(read())


def test_half_a_surrogate_is_refused_and_not_our_failure() -> None:
    for text in (rb'{"inputs": {"x": [["\ud800", 1]]}}', rb'{"inputs": [{"name": "\ud800"}]}', rb'{"\udfff": 1}'):
        for read in (lambda body=text: Asked(body).read(SERVED), lambda body=text: native.read_json(body, SERVED)):
            try:
                read()
            except StrongroomError as error:
                assert error.status in {400, 422}  # noqa: PT017  # either is right
            else:
                raise AssertionError("was read")


def test_both_faces_read_the_same_arrays() -> None:
    rows, texts = [[0.5, 1.5], [2.5, 3.5]], [["a"], ["b"]]
    body = json.dumps({"inputs": {"x": rows, "t": texts}}).encode()
    given = [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [0.5, 1.5, 2.5, 3.5]}]
    given.append({"name": "t", "shape": [2, 1], "datatype": "BYTES", "data": texts})
    one, other = native.read_json(body, SERVED), Asked(json.dumps({"inputs": given}).encode()).read(SERVED)
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    assert {name: plain(array) for name, array in one.items()} == {name: plain(array) for name, array in other.items()}


def plain(array: Array) -> tuple[str, list[Any]]:
    return array.dtype.kind, array.tolist()

"""Any bytes end in a data set or in a coded refusal: no other exception leaves the readers."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.depth import examples
from tests.training.making import archive, npy, npz, picture
from training.data import Data, parse, profile
from training.errors import DataRefused

pytestmark = pytest.mark.slow

NPZ = npz(image=np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4), label=np.array(["a", "b"]))
SMALL_NPZ = npz(features=np.array([[1.5], [2]]), label=np.array([0, 1]), compressed=True)
ZIP = archive(
    {"a/1.png": picture((3, 2)), "b/2.jpg": picture((3, 2), format="JPEG"), "b/3.bmp": picture((4, 4), format="BMP")}
)
CSV = b'a,b,label\n1,"x, y",0\n,z,1\n3e5,"q\n",0\n'


def read_or_refuse(content: bytes, format: str) -> None:
    refused = None
    try:
        data = parse(io.BytesIO(content), {"format": format, "target": "label"})
    except DataRefused as problem:
        refused = problem
    if refused is not None:
        assert re.fullmatch(r"[a-z0-9_]{3,40}", refused.code)
        assert 0 < len(refused.message) < 2000
        return
    assert isinstance(data, Data)
    assert all(len(values) == data.rows > 0 for values in data.inputs.values())
    assert profile(data)["rows"] == data.rows


@given(content=st.binary(max_size=300), format=st.sampled_from(["csv", "npz", "images"]))
def test_bytes_of_any_kind(content: bytes, format: str) -> None:
    read_or_refuse(content, format)


@settings(max_examples=examples(300))
@given(st.text(alphabet=st.sampled_from(list('ab,"\n\r\x00;1.-eNn_ \ufeffü')), max_size=80))
def test_text_that_looks_like_csv(text: str) -> None:
    read_or_refuse(b"label,a\n" + text.encode(), "csv")
    read_or_refuse(text.encode(), "csv")


@pytest.mark.parametrize(("good", "format"), [(NPZ, "npz"), (SMALL_NPZ, "npz"), (ZIP, "images"), (CSV, "csv")])
def test_good_files_with_bytes_changed_cut_or_added(good: bytes, format: str) -> None:
    @settings(max_examples=examples(300))
    @given(
        changes=st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=4),
        cut=st.integers(0, len(good)),
        tail=st.binary(max_size=8),
    )
    def broken(changes: list[tuple[int, int]], cut: int, tail: bytes) -> None:
        content = bytearray(good)
        for place, value in changes:
            content[place] = value
        read_or_refuse(bytes(content[:cut]) + tail if cut % 2 else bytes(content), format)

    read_or_refuse(good, format)
    broken()


@settings(max_examples=examples(300))
@given(
    descr=st.sampled_from(
        ["'<f4'", "'|u1'", "'|O'", "'<U3'", "'|S0'", "None", "'<f4", "[('a','<i4')]", "'<c8'", "'<M8[s]'"]
    ),
    shape=st.sampled_from(
        ["()", "(0,)", "(2,)", "(2, 2)", "(-1,)", "(10**9,)", "(99999999999999,)", "[2]", "(2,", "'x'"]
    ),
    payload=st.binary(max_size=32),
    version=st.sampled_from([1, 2, 3, 9]),
)
def test_headers_of_any_kind(descr: str, shape: str, payload: bytes, version: int) -> None:
    member = npy(descr, shape, payload, version=version)
    for entries in (
        {"features.npy": member, "label.npy": npy("'<i8'", "(2,)", bytes(16))},
        {"features.npy": npy("'<f4'", "(2, 1)", bytes(8)), "label.npy": member},
    ):
        read_or_refuse(archive(entries), "npz")

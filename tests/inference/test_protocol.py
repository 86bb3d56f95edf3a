"""Frames: what is written is read again, however it is cut; what is inconsistent is refused and never read past."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inference import protocol
from inference.errors import ProtocolError
from inference.protocol import AnswerReader, Frame, FrameReader
from tests.depth import examples

pytestmark = pytest.mark.slow

NUMBERS = [dtype for name, dtype in protocol.DTYPES.items() if name != "BYTES"]
NAMES = st.text(min_size=1, max_size=12)
TENSORS = st.dictionaries(
    NAMES,
    st.sampled_from(NUMBERS).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    max_size=4,
)
TEXTS = st.lists(st.one_of(st.binary(max_size=20), st.text(max_size=20)), min_size=1, max_size=10)


def frame_of(data: bytes) -> Frame:
    (frame,) = FrameReader().feed(data)
    return frame


def tensors_of(frame: Frame) -> dict[str, Any]:
    return protocol.read_tensors(protocol.tensor_specs(frame.fields()["inputs"]), frame.body)


@given(TENSORS)
def test_tensors_come_back_equal_and_aligned(given_tensors: dict[str, Any]) -> None:
    described, body = protocol.pack_tensors(given_tensors)
    data = protocol.encode(protocol.INFER, 7, {"inputs": described}, body, deadline_ms=9)
    frame = frame_of(data)
    assert (frame.kind, frame.request, frame.deadline_ms) == (protocol.INFER, 7, 9)
    read = tensors_of(frame)
    assert list(read) == list(given_tensors)
    for name, array in given_tensors.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()
    if frame.body:
        assert (len(data) - len(frame.body)) % 64 == 0
    assert all(fields["offset"] % 64 == 0 for fields in described)


@given(TEXTS)
def test_elements_of_bytes_come_back_equal(elements: list[bytes | str]) -> None:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    described, body = protocol.pack_tensors({"text": array})
    frame = frame_of(protocol.encode(protocol.INFER, 1, {"inputs": described}, body))
    expected = [element.encode() if isinstance(element, str) else element for element in elements]
    assert tensors_of(frame)["text"].tolist() == expected


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=6), st.data())
def test_a_stream_cut_anywhere_gives_the_same_frames(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(
        protocol.encode(protocol.INFER, number, {"n": number}, [body]) for number, body in enumerate(bodies)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    frames = [
        frame
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for frame in reader.feed(stream[begin:end])
    ]
    assert [(frame.request, bytes(frame.body)) for frame in frames] == list(enumerate(bodies))
    assert not reader.pending


@settings(max_examples=examples(300))
@given(TENSORS.filter(bool), st.data())
def test_a_changed_header_is_refused_or_stays_inside_the_body(tensors: dict[str, Any], data: st.DataObject) -> None:
    described, body = protocol.pack_tensors(tensors)
    fields = data.draw(st.sampled_from(described))
    field = data.draw(st.sampled_from(["shape", "offset", "datatype", "name"]))
    fields[field] = data.draw(
        st.one_of(st.integers(-(2**40), 2**40), st.lists(st.integers(-3, 2**33), max_size=20), st.text(), st.none())
    )
    frame = frame_of(protocol.encode(protocol.INFER, 1, {"inputs": described}, body))
    try:
        read = tensors_of(frame)
    except ProtocolError:
        return
    assert sum(array.nbytes for array in read.values() if array.dtype != object) <= len(frame.body)


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    try:
        for frame in FrameReader().feed(data):
            frame.fields()
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "tensors are not a list"),
        ([7], "a tensor's description is not a map"),
        ([{"name": "a", "datatype": "FP33", "shape": [], "offset": 0}], "a tensor without a name or with an unknown"),
        ([{"name": "a", "datatype": "FP32", "shape": [-1], "offset": 0}], "shape is not a list of sizes"),
        ([{"name": "a", "datatype": "FP32", "shape": [True], "offset": 0}], "shape is not a list of sizes"),
        ([{"name": "a", "datatype": "FP32", "shape": [2**60], "offset": 0}], "shape is not a list of sizes"),
        (
            [{"name": "a", "datatype": "FP32", "shape": [2**20, 2**20], "offset": 0}],
            "a tensor without its size, or larger",
        ),
        ([{"name": "a", "datatype": "FP32", "shape": [1], "offset": 4}], "a tensor is not aligned"),
        (
            [{"name": "a", "datatype": "BYTES", "shape": [1], "offset": 0}],
            "a tensor without its size, or larger",
        ),
        ([{"name": "a", "datatype": "UINT8", "shape": [1], "offset": 0}] * 2, "two tensors of one name"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(described: object, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        protocol.tensor_specs(described)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<I", 5) + b"a", "2 elements in 5 bytes"),
        (struct.pack("<I", 9) + b"abcd" + bytes(4), "a BYTES element is longer than its tensor"),
        (struct.pack("<I", 0) * 3, "bytes after the last BYTES element"),
    ],
)
def test_elements_that_do_not_fill_their_tensor_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        protocol.unpack_elements(memoryview(data), (2,))


def test_overlapping_tensors_and_gaps_are_refused() -> None:
    one = {"name": "a", "datatype": "UINT8", "shape": [8], "offset": 0}
    for other in ({"offset": 0}, {"offset": 128}):
        specs = protocol.tensor_specs([one, one | {"name": "b"} | other])
        with pytest.raises(ProtocolError, match="does not follow"):
            protocol.check_extent(specs, 136)


def test_an_answers_header_is_read_alike_the_first_and_the_next_time() -> None:
    described, body = protocol.pack_tensors({"y": np.ones((2, 3), "f4")})
    outputs = protocol.pack_answer_outputs(described)
    reader = AnswerReader()
    for times in ((1, 2, 3), (2**40, 5, 2**20)):
        header = protocol.pack_answer(outputs, *times)
        head = reader.read(header, memoryview(b"".join(body)))
        assert (head.queue_us, head.compute_us, head.batch) == (
            min(times[0], 2**32 - 1),
            times[1],
            min(times[2], 65535),
        )
        assert head.outputs[0].shape == (2, 3)
        with pytest.raises(ProtocolError, match="in a body of 8"):
            reader.read(header, memoryview(bytes(8)))


@given(st.binary(max_size=60))
def test_an_answers_header_of_any_bytes_is_read_or_refused(header: bytes) -> None:
    reader = AnswerReader()
    for _ in range(2):
        with contextlib.suppress(ProtocolError):
            reader.read(header, memoryview(b""))


def test_a_known_answer_with_a_forged_tail_is_refused() -> None:
    described, body = protocol.pack_tensors({"y": np.ones(3, "f4")})
    outputs, data = protocol.pack_answer_outputs(described), memoryview(b"".join(body))
    reader = AnswerReader()
    good = protocol.pack_answer(outputs, 1, 2, 3)
    reader.read(good, data)
    with pytest.raises(ProtocolError, match="not in its form"):
        reader.read(good.replace(b"queue_us", b"queue_xx"), data)

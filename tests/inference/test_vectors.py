"""The frames of tests/vectors/frames: what is good reads and writes to the byte, what is broken is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inference import protocol
from inference.errors import ProtocolError
from tests.inference.make_vectors import FOLDER

GOOD = json.loads((FOLDER / "good.json").read_text())
BROKEN = json.loads((FOLDER / "broken.json").read_text())


@pytest.mark.parametrize("vector", GOOD, ids=[vector["name"] for vector in GOOD])
def test_a_good_frame_reads_as_the_page_says_and_is_written_to_the_same_bytes(vector: dict[str, Any]) -> None:
    data, body = bytes.fromhex(vector["hex"]), bytes.fromhex(vector["body"])
    (frame,) = protocol.FrameReader().feed(data)
    assert (frame.kind, frame.request, frame.deadline_ms) == (vector["kind"], vector["request"], vector["deadline_ms"])
    assert frame.fields() == vector["header"]
    assert bytes(frame.body) == body
    if frame.kind == protocol.ANSWER:
        header = protocol.pack_answer(protocol.pack_answer_outputs(vector["header"]["outputs"]), 5, 6, 1)
        head = protocol.frame_head(2, 1, 0, protocol.Header(len(header), protocol.padded(header)), len(body))
        assert b"".join([*head, body]) == data
    else:
        parts = [body] if body else []
        fields, deadline = vector["header"], frame.deadline_ms
        assert protocol.encode(frame.kind, frame.request, fields, parts, deadline_ms=deadline) == data


def test_the_tensors_of_the_vectors_are_what_they_say() -> None:
    (frame,) = protocol.FrameReader().feed(bytes.fromhex(GOOD[1]["hex"]))
    tensors = protocol.read_tensors(protocol.tensor_specs(frame.fields()["inputs"]), frame.body)
    assert tensors["x"].tolist() == [[1, -2, 0.5]]
    assert tensors["t"].tolist() == [b"a", b"bc"]


def test_an_answers_own_codec_reads_the_vector() -> None:
    (frame,) = protocol.FrameReader().feed(bytes.fromhex(GOOD[3]["hex"]))
    head = protocol.AnswerReader().read(frame.header, frame.body)
    assert (head.queue_us, head.compute_us, head.batch, head.outputs[0].name) == (5, 6, 1, "y")


@pytest.mark.parametrize("vector", BROKEN, ids=[vector["name"] for vector in BROKEN])
def test_a_broken_frame_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=vector["says"]):
        read(bytes.fromhex(vector["hex"]))


def read(data: bytes) -> None:
    for frame in protocol.FrameReader().feed(data):
        protocol.check_extent(protocol.tensor_specs(frame.fields()["inputs"]), len(frame.body))

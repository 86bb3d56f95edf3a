"""What a job's process says is read as if it were hostile."""

import base64
import json
import math
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.jobs import packets
from strongroom.jobs.packets import Done, Failed, Line, Progress, Ready, Sealed, Unreadable

SEALED = {
    "type": "sealed",
    "kind": "model",
    "artefact": str(uuid4()),
    "header_tag": base64.b64encode(bytes(32)).decode(),
    "wrapped_data_key": base64.b64encode(bytes(1168)).decode(),
    "size_bytes": 5,
    "about": {},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(["ready", "progress", "log", "sealed", "batch", "done", "failed", "other"])
NAMES = [
    "type",
    "device",
    "sandbox",
    "metrics",
    "fraction",
    "epoch",
    "level",
    "text",
    *SEALED,
    "result",
    "code",
    "hint",
]


def packet(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_each_packet_of_the_contract_is_read() -> None:
    read = packets.parse(packet(type="ready", pid=1, torch_version="2", device="cpu", sandbox="seccomp"))
    assert read == Ready("cpu", "seccomp")
    read = packets.parse(packet(type="progress", fraction=0.5, epoch=1, eta_seconds=None, metrics={"train/loss": 1}))
    assert read == Progress({"fraction": 0.5, "epoch": 1, "eta_seconds": None}, {"train/loss": 1.0})
    assert packets.parse(packet(type="log", level="warning", text="x")) == Line("warning", "x")
    assert packets.parse(packet(type="done", result={"rows": 3})) == Done({"rows": 3})
    assert packets.parse(packet(type="failed", code="diverged", message="m", hint=None)) == Failed(
        "diverged", "m", None
    )
    sealed = packets.parse(packet(**SEALED))
    assert isinstance(sealed, Sealed)
    assert (sealed.kind, sealed.size_bytes, sealed.step) == ("model", 5, None)


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_packet_or_a_refusal(data: bytes) -> None:
    try:
        packets.parse(data)
    except Unreadable:
        return
    assert data


@given(TYPES, st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8))
def test_no_json_makes_anything_but_a_packet_or_a_refusal(kind: str, fields: dict[str, Any]) -> None:
    try:
        read = packets.parse(json.dumps(fields | {"type": kind}).encode())
    except Unreadable:
        return
    assert kind != "other"
    if isinstance(read, Progress):
        json.dumps(dict(read.shown), allow_nan=False)
        assert all(math.isfinite(value) for value in read.metrics.values())


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "data"},
        {"kind": "import"},
        {"header_tag": base64.b64encode(bytes(31)).decode()},
        {"header_tag": "§"},
        {"wrapped_data_key": base64.b64encode(bytes(5000)).decode()},
        {"artefact": "../../x"},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"about": {"step": "1"}},
        {"about": "x"},
    ],
)
def test_a_sealed_output_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        packets.parse(packet(**(SEALED | change)))


def test_a_metric_that_the_contract_does_not_name_is_left_out() -> None:
    given = {"train/loss": 1.0, "patient": 3.0, "train/../x": 1.0, "test/f1": math.nan}
    assert packets.metrics(given) == {"train/loss": 1.0}


def test_names_made_up_by_the_thousand_are_no_metrics() -> None:
    assert packets.metrics({f"train/m{number}": 1.0 for number in range(3000)}) == {}


def test_a_long_line_is_cut_and_null_characters_are_left_out() -> None:
    read = packets.parse(packet(type="log", level="shout", text="\x00" + "x" * 9000))
    assert read == Line("info", "x" * packets.TEXT_CHARACTERS)


@pytest.mark.parametrize("text", [b'"\\ud800"', b"NaN", b"1e999", b"[" * 5000])
def test_what_other_readers_of_json_would_stumble_over_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable):
        packets.parse(b'{"type": "done", "result": {"reasons": ' + text + b"}}")

"""The channel by itself, over a socket pair: what it lets through, what it waits for, what it makes of numbers."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from sealing import WrongKey, unwrap_data_key
from tests.training.worker import Tenant, start_packet
from training import channel as channel_module
from training.channel import Channel, ParentGone
from training.errors import Cancelled, Drained


class Parent:
    """The other end."""

    def __init__(self, slots: int = 2) -> None:
        self.tenant = Tenant()
        self.socket, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours.detach())
        self.slots = [os.memfd_create("slot") for _ in range(slots)]
        self.send(start_packet(self.tenant, {"kind": "check"}, {"format": "csv"}, []), self.slots)
        self.start = self.channel.start()

    def send(self, packet: dict[str, Any], descriptors: list[int] | None = None) -> None:
        socket.send_fds(self.socket, [json.dumps(packet).encode()], descriptors or [])

    def receive(self) -> dict[str, Any]:
        self.socket.settimeout(10)
        packet: dict[str, Any] = json.loads(self.socket.recv(65_536))
        return packet

    def pending(self) -> list[dict[str, Any]]:
        found = []
        self.socket.setblocking(False)
        try:
            while True:
                found.append(json.loads(self.socket.recv(65_536)))
        except BlockingIOError:
            return found


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parent]:
    monkeypatch.setattr(channel_module, "_CONTROL_SECONDS", 0)
    made = Parent()
    yield made
    made.socket.close()


def test_the_start_is_read_with_its_descriptors_in_order() -> None:
    tenant = Tenant()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    data, first = tenant.seal(b"rows", "data")
    state, second = tenant.seal(b"state", "checkpoint")
    resume = {name: value for name, value in state.items() if name != "kind"}
    packet = start_packet(tenant, {"kind": "train"}, {"format": "csv"}, [{"name": "dataset", **data}], resume=resume)
    socket.send_fds(ours, [json.dumps(packet).encode()], [first, second, os.memfd_create("a"), os.memfd_create("b")])
    start = Channel(theirs.detach()).start()
    assert bytes(start.reader("dataset").read()) == b"rows"
    assert start.resume is not None
    assert bytes(start.opened(start.resume).read()) == b"state"
    assert start.about == {"format": "csv"}
    assert data["data_key"] not in repr(start)
    ours.close()


def test_progress_gets_through_twice_a_second_and_at_every_epochs_end(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(channel_module.time, "monotonic", lambda: now[0])
    for step in range(100):
        parent.channel.progress(step=step)
        now[0] += 1 / 32
    parent.channel.progress(step=100, force=True)
    assert [packet["step"] for packet in parent.pending()] == [0, 16, 32, 48, 64, 80, 96, 100]


def test_numbers_that_json_has_not_become_null(parent: Parent) -> None:
    parent.channel.progress(metrics={"train/loss": float("nan")}, eta_seconds=float("inf"))
    assert parent.receive() == {"type": "progress", "metrics": {"train/loss": None}, "eta_seconds": None}


def test_what_is_sealed_opens_with_the_tenants_private_key_and_with_no_other(parent: Parent) -> None:
    artefact = parent.channel.seal("checkpoint", b"weights" * 1000, {"epoch": 2, "step": 40})
    packet = parent.receive()
    assert packet["artefact"] == str(artefact)
    assert packet["about"] == {"epoch": 2, "step": 40}
    assert parent.tenant.open(packet, parent.slots[0]) == b"weights" * 1000
    with pytest.raises(WrongKey):
        unwrap_data_key(
            Tenant().keys.private,
            base64.b64decode(packet["wrapped_data_key"]),
            tenant=parent.tenant.id,
            artefact=UUID(packet["artefact"]),
            generation=parent.tenant.generation,
        )


def test_slots_are_used_in_order_and_waited_for_when_there_is_none(parent: Parent) -> None:
    third = os.memfd_create("slot")
    for content in (b"1", b"2"):
        parent.channel.seal("checkpoint", content, {})
    timer = threading.Timer(0.2, parent.send, [{"type": "slot"}, [third]])
    timer.start()
    parent.channel.seal("checkpoint", lambda writer: writer.write(b"3"), {})
    contents = [parent.tenant.open(parent.receive(), slot) for slot in (*parent.slots, third)]
    assert contents == [b"1", b"2", b"3"]


def test_each_sealing_has_a_key_and_an_artefact_of_its_own(parent: Parent) -> None:
    parent.channel.seal("model", b"same", {})
    parent.channel.seal("model", b"same", {})
    first, second = parent.receive(), parent.receive()
    assert first["artefact"] != second["artefact"]
    assert first["wrapped_data_key"] != second["wrapped_data_key"]
    assert os.pread(parent.slots[0], 1000, 0) != os.pread(parent.slots[1], 1000, 0)


def test_control_never_waits_and_cancel_outdoes_drain(parent: Parent) -> None:
    assert parent.channel.control() is None
    parent.send({"type": "control", "want": "drain"})
    assert parent.channel.control() == "drain"
    with pytest.raises(Drained):
        parent.channel.stop_if_wanted()
    parent.send({"type": "control", "want": "cancel"})
    parent.send({"type": "control", "want": "drain"})
    assert parent.channel.control() == "cancel"
    with pytest.raises(Cancelled):
        parent.channel.stop_if_wanted()


def test_a_cancel_ends_the_wait_for_a_slot(parent: Parent) -> None:
    for content in (b"1", b"2"):
        parent.channel.seal("checkpoint", content, {})
    parent.send({"type": "control", "want": "cancel"})
    with pytest.raises(Cancelled):
        parent.channel.seal("checkpoint", b"3", {})


def test_last_words_are_heard_though_a_packet_was_left_unread(parent: Parent) -> None:
    parent.send({"type": "slot"}, [os.memfd_create("slot")])
    parent.channel.done({"rows": 3})
    parent.channel.close()
    assert parent.receive() == {"type": "done", "result": {"rows": 3}}
    assert parent.socket.recv(10) == b""


def test_long_texts_are_cut_and_too_long_packets_never_sent(parent: Parent) -> None:
    parent.channel.log("info", "ü" * 100_000)
    parent.channel.failed("check_failed", "x" * 100_000, "y" * 100_000)
    log, failed = parent.receive(), parent.receive()
    assert len(log["text"]) == len(failed["message"]) == len(failed["hint"]) == 4000
    with pytest.raises(ValueError, match="over 65536"):
        parent.channel.done({"metrics": "x" * 70_000})


def test_a_parent_that_is_gone_is_told_from_one_that_is_silent(parent: Parent) -> None:
    assert parent.channel.control() is None
    parent.socket.close()
    with pytest.raises(ParentGone):
        parent.channel.control()
    with pytest.raises(ParentGone):
        parent.channel.log("info", "nobody listens")


@pytest.mark.parametrize("packet", [{"type": "surprise"}, {"type": "control", "want": "pause"}, {}])
def test_packets_that_are_not_of_the_contract_are_refused(parent: Parent, packet: dict[str, Any]) -> None:
    parent.send(packet)
    with pytest.raises(ValueError, match="unknown type"):
        parent.channel.control()

"""What a cell refuses: broken frames, frames for the agent only, more than its memory; and when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from inference import protocol
from tests.inference import graphs
from tests.inference.cells import Cell, Connection, Zygote, outputs_of

pytestmark = pytest.mark.slow

ZEROS = {"x": np.zeros((1, 64), "f4")}


@pytest.mark.parametrize("kind", [protocol.LOAD, protocol.UNLOAD, protocol.STATS, protocol.ANSWER])
def test_what_only_the_agent_may_ask_closes_the_connection(mlp_cell: Cell, edge: Connection, kind: int) -> None:
    edge.send(kind, {"model": "mlp", "version": "1", "deployment": "mlp"})
    with pytest.raises((EOFError, ConnectionResetError)):
        edge.frame()
    other = mlp_cell.connect()
    other.infer("mlp", ZEROS)
    assert outputs_of(other.frame())


@pytest.mark.parametrize(
    "broken",
    [
        protocol.HEAD.pack(protocol.MAX_FRAME_BYTES + 1, protocol.INFER, 0, 10, 1, 0),
        protocol.HEAD.pack(64, 99, 0, 10, 1, 0),
        protocol.HEAD.pack(64, protocol.INFER, 1, 10, 1, 0),
        protocol.HEAD.pack(20, protocol.INFER, 0, 10, 1, 0),
        protocol.HEAD.pack(24, protocol.INFER, 0, 4, 1, 0) + b"\xc1\xc1\xc1\xc1",
        protocol.encode(protocol.INFER, 1, {"model": "mlp", "version": "1", "inputs": 7}),
    ],
    ids=["too long", "unknown kind", "unknown flags", "header longer than the frame", "no msgpack", "no tensors"],
)
def test_bytes_that_are_no_frame_close_only_their_own_connection(
    mlp_cell: Cell, edge: Connection, broken: bytes
) -> None:
    healthy = mlp_cell.connect()
    edge.socket.sendall(broken)
    with pytest.raises((EOFError, ConnectionResetError)):
        edge.frame()
    healthy.infer("mlp", ZEROS)
    assert outputs_of(healthy.frame())


def test_a_body_of_another_length_than_its_tensors_closes_the_connection(mlp_cell: Cell, edge: Connection) -> None:
    edge.infer("mlp", ZEROS)
    assert outputs_of(edge.frame())  # the header is known now
    described, body = protocol.pack_tensors(ZEROS)
    edge.send(protocol.INFER, {"model": "mlp", "version": "1", "inputs": described}, [*body, b"more"])
    with pytest.raises((EOFError, ConnectionResetError)):
        edge.frame()


def test_the_cell_ends_when_its_agent_is_gone(zygote: Zygote, sockets: Path) -> None:
    forked = zygote.fork(sockets / "gone.sock")
    assert os.path.exists(f"/proc/{forked.pid}")
    forked.agent.close()
    assert zygote.packet() == {"type": "ended", "pid": forked.pid, "code": 0}
    with pytest.raises(ConnectionRefusedError):
        forked.connect()


def test_the_zygote_tells_of_a_killed_cell_and_kills_only_its_own(zygote: Zygote, sockets: Path) -> None:
    one, other = (zygote.fork(sockets / f"{name}.sock") for name in ("one", "other"))
    os.kill(one.pid, signal.SIGKILL)
    assert zygote.packet() == {"type": "ended", "pid": one.pid, "code": -9}
    assert zygote.ask({"type": "kill", "pid": other.pid}, []) == {"type": "ended", "pid": other.pid, "code": -9}
    zygote.child.channel.send(b'{"type": "kill", "pid": %d}' % os.getpid())
    assert zygote.ask({"type": "fork"}, [])["type"] == "failed"


def test_cells_die_with_the_zygote(sockets: Path) -> None:
    with Zygote() as own:
        forked = own.fork(sockets / "orphan.sock")
        own.child.process.kill()
        with pytest.raises((EOFError, ConnectionResetError)):
            forked.agent.frame()


def test_cells_of_two_tenants_are_two_processes(zygote: Zygote, sockets: Path, cell: Cell) -> None:
    other = zygote.fork(sockets / "tenant2.sock")
    assert other.pid != cell.pid
    cell.load("mlp", *graphs.mlp())
    connection = other.connect()
    connection.infer("mlp", ZEROS)
    assert connection.frame().fields()["code"] == "model_loading"
    other.agent.close()
    assert zygote.packet()["pid"] == other.pid


def test_a_model_that_needs_more_memory_than_the_cell_has_is_an_error_and_the_cell_lives(
    zygote: Zygote, sockets: Path
) -> None:
    small = zygote.fork(sockets / "small.sock", memory_bytes=64 << 20)
    small.load("mean", *graphs.image_mean(3, 64, 64))
    small.load("mlp", *graphs.mlp())
    edge = small.connect()
    described = [{"name": "image", "datatype": "UINT8", "shape": [4000, 3, 64, 64], "offset": 0}]
    edge.send(protocol.INFER, {"model": "mean", "version": "1", "inputs": described}, [bytes(4000 * 3 * 64 * 64)])
    edge.frame()
    edge.infer("mlp", ZEROS)
    assert outputs_of(edge.frame())
    small.agent.close()
    assert zygote.packet()["pid"] == small.pid


def test_a_slow_reader_does_not_stop_the_others(mlp_cell: Cell, edge: Connection) -> None:
    big = {"x": np.zeros((4000, 64), "f4")}
    lazy = mlp_cell.connect()
    lazy.socket.setblocking(False)
    described, body = protocol.pack_tensors(big)
    frame = protocol.encode(protocol.INFER, 1, {"model": "mlp", "version": "1", "inputs": described}, body)
    number = sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent == number * len(frame):  # until a frame is taken in part only, or not at all
            number += 1
            sent += lazy.socket.send(frame[:8] + number.to_bytes(8, "little") + frame[16:])
    edge.infer("mlp", ZEROS)
    assert outputs_of(edge.frame())


def test_the_sandbox_is_entered_before_anything_is_served(mlp_cell: Cell) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{mlp_cell.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert socket.AF_UNIX  # the connections above were accepted inside

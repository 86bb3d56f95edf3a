"""A real zygote and real sandboxed cells for the tests, and a client that speaks raw frames over a blocking socket."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import sandbox
from inference import protocol
from inference.protocol import Array, Frame, FrameReader
from sealing import Identity, new_data_key, seal_memory

SECONDS = 30.0


class Zygote:
    """`with Zygote() as zygote: zygote.fork(path)`; its end is every cell's end."""

    def __init__(self, mode: sandbox.Mode = "auto") -> None:
        self.mode = mode
        self.child = sandbox.start(
            [sys.executable, "-m", "inference.zygote"],
            profile="cell-cpu",
            memory_bytes=1 << 30,
            mode=mode,
            errors=subprocess.DEVNULL,
        )
        self.child.channel.settimeout(SECONDS)
        assert self.packet()["type"] == "ready"

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *failure: object) -> None:
        self.child.end()

    def packet(self) -> dict[str, Any]:
        return dict(json.loads(self.child.channel.recv(4096)))

    def ask(self, packet: Mapping[str, Any], descriptors: list[int]) -> dict[str, Any]:
        socket.send_fds(self.child.channel, [json.dumps(packet).encode()], descriptors)
        return self.packet()

    def fork(self, path: Path, *, tenant: UUID | None = None, memory_bytes: int = 1 << 30) -> Cell:
        ours, theirs = socket.socketpair()
        with theirs, socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen(64)
            packet = {"type": "fork", "profile": "cell-cpu", "mode": self.mode, "threads": 1}
            reply = self.ask(packet | {"memory_bytes": memory_bytes}, [listening.fileno(), theirs.fileno()])
        assert reply["type"] == "forked", reply
        ours.settimeout(SECONDS)
        return Cell(reply["pid"], path, ours, tenant or uuid4())


class Connection:
    """Frames over a blocking socket, one reader."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(SECONDS)
        self._reader = FrameReader()
        self._frames: list[Frame] = []
        self._numbers = itertools.count(1)

    def send(self, kind: int, fields: Mapping[str, Any], body: Any = (), *, deadline_ms: int = 0) -> int:
        number = next(self._numbers)
        self.socket.sendall(protocol.encode(kind, number, fields, body, deadline_ms=deadline_ms))
        return number

    def frame(self) -> Frame:
        """The next frame; EOFError where the other side has closed."""
        while not self._frames:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    def infer(self, model: str, inputs: Mapping[str, Array], *, deadline_ms: int = 0, **fields: Any) -> int:
        described, body = protocol.pack_tensors(inputs)
        header = {"model": model, "version": "1", "inputs": described} | fields
        return self.send(protocol.INFER, header, body, deadline_ms=deadline_ms)

    def infer_raw(self, model: str, content_type: str, body: bytes) -> int:
        header = {"model": model, "version": "1", "content_type": content_type}
        return self.send(protocol.INFER, header, [body])

    def close(self) -> None:
        self.socket.close()


class Cell:
    """One forked cell; `agent` is the connection that may load."""

    def __init__(self, pid: int, path: Path, agent: socket.socket, tenant: UUID) -> None:
        self.pid, self.path, self.tenant = pid, path, tenant
        self.agent = Connection(agent)

    def load(self, name: str, model: bytes, signature: Mapping[str, Any], **changes: Any) -> Frame:
        """What the cell answers. `changes` replace fields of the frame, or `key`, for tests of refusals."""
        artefact, key = uuid4(), new_data_key()
        descriptor = os.memfd_create("sealed")
        try:
            tag = seal_memory(model, descriptor, key, Identity(self.tenant, artefact, "model"))
            fields = {
                "deployment": name,
                "version": "1",
                "tenant": str(self.tenant),
                "artefact": str(artefact),
                "header_tag": tag,
                "stored_bytes": os.fstat(descriptor).st_size,
                "batching": {"max_batch": changes.pop("max_batch", 64)},
            }
            body = [changes.pop("key", key), bytes(32), json.dumps(signature).encode()]
            frame = protocol.encode(protocol.LOAD, 1, fields | changes, body)
            sent = socket.send_fds(self.agent.socket, [frame], [descriptor])
            self.agent.socket.sendall(frame[sent:])
        finally:
            os.close(descriptor)
        return self.agent.frame()

    def connect(self) -> Connection:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        return Connection(connection)

    def stats(self) -> dict[str, Any]:
        self.agent.send(protocol.STATS, {})
        return self.agent.frame().fields()


def outputs_of(frame: Frame) -> dict[str, Array]:
    """The tensors of an answer; an error frame fails the test with its fields."""
    assert frame.kind == protocol.ANSWER, frame.fields()
    return protocol.read_tensors(protocol.tensor_specs(frame.fields()["outputs"]), frame.body)

"""The job's side of the socket between worker and job process: the packets of docs/formats/processes.md, both ways.

One JSON object a packet, descriptors beside it. Knows keys for as long as the job lives and what the parent wants;
knows no data, no model and no loop. One thread uses it: the job's.
"""

from __future__ import annotations

import array
import base64
import json
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from sealing import Identity, SealReader, SealWriter, new_data_key, wrap_data_key
from training.errors import Cancelled, Drained

PACKET_BYTES = 65_536
_DESCRIPTORS = 16  # of one packet, at most
_INT = array.array("i").itemsize
_PROGRESS_SECONDS = 0.5
_CONTROL_SECONDS = 0.02  # looking costs a system call, steps may take microseconds
_TEXT_CHARACTERS = 4000  # a longer line of log or message is cut

Json = dict[str, Any]
Content = bytes | bytearray | memoryview | Callable[[SealWriter], None]
Want = Literal["cancel", "drain"]


class ParentGone(Exception):
    """Nobody is left to work for."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed artefact that came with the start, and its key."""

    artefact: UUID
    kind: str
    header_tag: bytes
    data_key: bytes = field(repr=False)
    descriptor: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Start:
    """What a job begins with. `about` holds facts of the input: format, modality, target, fingerprint."""

    job: str
    attempt: int
    fence: int
    tenant: UUID
    spec: Json
    about: Json
    inputs: Mapping[str, Sealed]
    resume: Sealed | None
    public_key: bytes
    generation: int
    threads: int
    memory_bytes: int

    def reader(self, name: str) -> SealReader:
        """An input, opened; ArtefactCorrupt where it is not what it should be."""
        return self.opened(self.inputs[name])

    def opened(self, sealed: Sealed) -> SealReader:
        identity = Identity(self.tenant, sealed.artefact, sealed.kind)
        return SealReader(
            sealed.descriptor,
            sealed.data_key,
            identity,
            header_tag=sealed.header_tag,
            stored_bytes=sealed.stored_bytes,
        )


class Channel:
    """Our end. `start` comes first; every other method may come in any order after it."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._slots: deque[int] = deque()
        self._outputs: deque[tuple[Json, list[int]]] = deque()
        self._want: Want | None = None
        self._start: Start | None = None
        self._progress_at = -math.inf
        self._control_at = -math.inf

    def start(self) -> Start:
        packet, descriptors = self._receive(blocking=True) or ({}, [])
        if packet.get("type") != "start":
            raise ValueError("the first packet is not a start")
        self._start, slots = _start(packet, descriptors)
        self._slots.extend(slots)
        return self._start

    def ready(self, *, torch_version: str, device: str, sandbox: str) -> None:
        self._send("ready", pid=os.getpid(), torch_version=torch_version, device=device, sandbox=sandbox)

    def progress(self, *, force: bool = False, **fields: Any) -> None:
        """At most two a second get through; an epoch's end is forced. Numbers that are not finite become null."""
        now = time.monotonic()
        if force or now - self._progress_at >= _PROGRESS_SECONDS:
            self._progress_at = now
            self._send("progress", **_finite(fields))

    def log(self, level: str, text: str) -> None:
        self._send("log", level=level, text=text[:_TEXT_CHARACTERS])

    def seal(self, kind: str, data: Content, about: Mapping[str, Any]) -> UUID:
        """A new artefact in the oldest slot, under a key of its own that only the tenant's private half opens again."""
        start = self._started()
        slot = self._slot()
        artefact, data_key = uuid7(), new_data_key()
        try:
            writer = SealWriter(lambda piece: os.write(slot, piece), data_key, Identity(start.tenant, artefact, kind))
            if callable(data):
                data(writer)
            else:
                writer.write(data)
            writer.close()
        finally:
            os.close(slot)
        wrapped = wrap_data_key(
            start.public_key, data_key, tenant=start.tenant, artefact=artefact, generation=start.generation
        )
        self._send(
            "sealed",
            kind=kind,
            artefact=str(artefact),
            header_tag=_text(writer.header_tag),
            wrapped_data_key=_text(wrapped),
            size_bytes=writer.size_bytes,
            about=_finite(dict(about)),
        )
        return artefact

    def control(self) -> Want | None:
        """What the parent wants by now; it never waits. `cancel` outdoes `drain`."""
        now = time.monotonic()
        if now - self._control_at >= _CONTROL_SECONDS:
            self._control_at = now
            while received := self._receive(blocking=False):
                self._take(*received)
        return self._want

    def stop_if_wanted(self) -> None:
        """For kinds that keep nothing half done: cancelled they end, drained they begin anew elsewhere."""
        want = self.control()
        if want == "cancel":
            raise Cancelled
        if want == "drain":
            raise Drained

    def batch(self, number: int, described: list[Json], body: bytes) -> None:
        """Inputs for the node's cell; the body goes by descriptor when the packet would be too long."""
        fields: Json = {"number": number, "inputs": described}
        if len(body) * 4 // 3 + len(json.dumps(described)) < PACKET_BYTES - 1024:
            self._send("batch", **fields, body=_text(body))
            return
        memory = os.memfd_create("batch", os.MFD_CLOEXEC)
        try:
            _write_all(memory, body)
            self._send("batch", descriptors=[memory], **fields)
        finally:
            os.close(memory)

    def outputs(self) -> tuple[int, list[Json], bytes]:
        """The next answer to a batch: its number, descriptions and body. Waits; Cancelled when that is wanted."""
        while not self._outputs:
            self._wait()
        packet, descriptors = self._outputs.popleft()
        body = _read_all(descriptors[0]) if descriptors else base64.b64decode(packet["body"])
        return packet["number"], packet["outputs"], body

    def done(self, result: Mapping[str, Any]) -> None:
        self._send("done", result=_finite(dict(result)))

    def failed(self, code: str, message: str, hint: str | None) -> None:
        cut = hint if hint is None else hint[:_TEXT_CHARACTERS]
        self._send("failed", code=code, message=message[:_TEXT_CHARACTERS], hint=cut)

    def close(self) -> None:
        """The end, after the last packet. What the parent sent meanwhile is read: a socket closed over an unread packet
        resets the connection, and the parent would see that before our last words."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
            while received := self._receive(blocking=False):
                for descriptor in received[1]:
                    os.close(descriptor)
        except (ParentGone, OSError):
            pass
        self._socket.close()

    def _started(self) -> Start:
        if self._start is None:
            raise RuntimeError("start() comes first")
        return self._start

    def _slot(self) -> int:
        while not self._slots:
            self._wait()
        return self._slots.popleft()

    def _wait(self) -> None:
        received = self._receive(blocking=True)
        if received:
            self._take(*received)
        if self._want == "cancel":
            raise Cancelled

    def _take(self, packet: Json, descriptors: list[int]) -> None:
        kind = packet.get("type")
        if kind == "slot":
            self._slots.extend(descriptors)
        elif kind == "outputs":
            self._outputs.append((packet, descriptors))
        elif kind == "control" and packet.get("want") in ("cancel", "drain"):
            self._want = "cancel" if "cancel" in (packet["want"], self._want) else "drain"
        else:
            raise ValueError("a packet of the parent has an unknown type")

    def _receive(self, *, blocking: bool) -> tuple[Json, list[int]] | None:
        flags = socket.MSG_CMSG_CLOEXEC | (0 if blocking else socket.MSG_DONTWAIT)
        try:
            # Not socket.recv_fds: it drops the flags (Python 3.11) and would wait.
            data, beside, answer, _ = self._socket.recvmsg(PACKET_BYTES, socket.CMSG_LEN(_DESCRIPTORS * _INT), flags)
        except BlockingIOError:
            return None
        except ConnectionError:
            raise ParentGone from None
        if not data:
            raise ParentGone
        if answer & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("a packet of the parent is too long")
        return json.loads(data), _descriptors(beside)

    def _send(self, type_: str, /, *, descriptors: list[int] | None = None, **fields: Any) -> None:
        packet = json.dumps({"type": type_, **fields}, allow_nan=False, separators=(",", ":")).encode()
        if len(packet) > PACKET_BYTES:
            raise ValueError(f"a packet {type_} of {len(packet)} bytes is over {PACKET_BYTES}")
        try:
            socket.send_fds(self._socket, [packet], descriptors or [])
        except ConnectionError:
            raise ParentGone from None


def _descriptors(beside: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _INT])
    return found.tolist()


def _start(packet: Json, descriptors: list[int]) -> tuple[Start, list[int]]:
    """The start and the slots: descriptors come in the order inputs, resume, slots."""
    rest = deque(descriptors)
    inputs = {fields["name"]: _sealed(fields, fields["kind"], rest.popleft()) for fields in packet["inputs"]}
    resume = packet.get("resume")
    start = Start(
        job=packet["job"],
        attempt=packet["attempt"],
        fence=packet["fence"],
        tenant=UUID(packet["tenant"]),
        spec=packet["spec"],
        about=packet.get("about") or {},
        inputs=inputs,
        resume=_sealed(resume, "checkpoint", rest.popleft()) if resume else None,
        public_key=base64.b64decode(packet["public_key"]),
        generation=packet["generation"],
        threads=packet["threads"],
        memory_bytes=packet["memory_bytes"],
    )
    return start, list(rest)


def _sealed(fields: Json, kind: str, descriptor: int) -> Sealed:
    stored_bytes = fields.get("stored_bytes")
    return Sealed(
        artefact=UUID(fields["artefact"]),
        kind=kind,
        header_tag=base64.b64decode(fields["header_tag"]),
        data_key=base64.b64decode(fields["data_key"]),
        descriptor=descriptor,
        stored_bytes=os.fstat(descriptor).st_size if stored_bytes is None else stored_bytes,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read_all(descriptor: int) -> bytes:
    try:
        size = os.fstat(descriptor).st_size
        data = bytearray()
        while len(data) < size and (piece := os.pread(descriptor, size - len(data), len(data))):
            data += piece
        return bytes(data)
    finally:
        os.close(descriptor)

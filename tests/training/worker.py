"""The worker's side of a job process, as small as it can be: keys, slots, packets. It stands for strongroom.jobs here.

The process is the real one, in the real sandbox; only the database and the storage are left out.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from uuid import UUID, uuid4

import sandbox
from sealing import Identity, SealReader, SealWriter, generate_tenant_key, new_data_key, unwrap_data_key

PACKET_BYTES = 65_536
MEMORY_BYTES = 2**30
Json = dict[str, Any]
Answer = Callable[[Json, bytes], tuple[list[Json], bytes]]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Tenant:
    """Whose data it is: the public half goes to the job, the private half opens what comes back."""

    id: UUID = field(default_factory=uuid4)
    generation: int = 3

    def __post_init__(self) -> None:
        self.keys = generate_tenant_key()

    def seal(self, content: bytes, kind: str) -> tuple[Json, int]:
        """An artefact as it stands in a start packet, and its descriptor."""
        artefact, data_key = uuid4(), new_data_key()
        descriptor = os.memfd_create("artefact")
        writer = SealWriter(lambda piece: os.write(descriptor, piece), data_key, Identity(self.id, artefact, kind))
        writer.write(content)
        writer.close()
        fields = {
            "artefact": str(artefact),
            "kind": kind,
            "header_tag": b64(writer.header_tag),
            "data_key": b64(data_key),
            "stored_bytes": writer.stored_bytes,
        }
        return fields, descriptor

    def open(self, sealed: Json, descriptor: int) -> bytes:
        """What a `sealed` packet says lies in its slot."""
        artefact = UUID(sealed["artefact"])
        data_key = unwrap_data_key(
            self.keys.private,
            base64.b64decode(sealed["wrapped_data_key"]),
            tenant=self.id,
            artefact=artefact,
            generation=self.generation,
        )
        reader = SealReader(
            descriptor,
            data_key,
            Identity(self.id, artefact, sealed["kind"]),
            header_tag=base64.b64decode(sealed["header_tag"]),
            stored_bytes=os.fstat(descriptor).st_size,
        )
        assert reader.size_bytes == sealed["size_bytes"]
        return bytes(reader.read())


def start_packet(tenant: Tenant, spec: Json, about: Json, inputs: list[Json], **more: Any) -> Json:
    return {
        "type": "start",
        "job": str(uuid4()),
        "attempt": 1,
        "fence": 1,
        "tenant": str(tenant.id),
        "spec": spec,
        "about": about,
        "inputs": inputs,
        "public_key": b64(tenant.keys.public),
        "generation": tenant.generation,
        "resume": None,
        "threads": 1,
        "memory_bytes": MEMORY_BYTES,
        **more,
    }


class Worker:
    """One job process from its start to its last packet. `outputs` holds what it sealed, opened, by kind."""

    def __init__(self, tenant: Tenant, *, errors: int | None = None) -> None:
        self.tenant = tenant
        self.child = sandbox.start(
            [sys.executable, "-m", "training.run"],
            profile="job-cpu",
            memory_bytes=MEMORY_BYTES,
            **({} if errors is None else {"errors": errors}),
        )
        self.slots: list[int] = []
        self.packets: list[Json] = []
        self.outputs: dict[str, bytes] = {}

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.end()
        for slot in self.slots:
            os.close(slot)

    def begin(self, spec: Json, about: Json, content: Mapping[str, tuple[bytes, str]], **more: Any) -> None:
        sealed = {name: self.tenant.seal(*one) for name, one in content.items()}
        inputs = [{"name": name, **fields} for name, (fields, _) in sealed.items()]
        self.slots = [os.memfd_create("slot") for _ in range(2)]
        descriptors = [*(descriptor for _, descriptor in sealed.values()), *self.slots]
        self.send(start_packet(self.tenant, spec, about, inputs, **more), descriptors)
        for _, descriptor in sealed.values():
            os.close(descriptor)

    def send(self, packet: Json, descriptors: list[int] | None = None) -> None:
        socket.send_fds(self.child.channel, [json.dumps(packet).encode()], descriptors or [])

    def finish(self, answer: Answer | None = None) -> Json:
        """Serves the process until `done` or `failed`, which is returned."""
        self.child.channel.settimeout(60)
        while True:
            data, descriptors, _, _ = socket.recv_fds(self.child.channel, PACKET_BYTES, 4)
            assert data, "the process ended without a last packet"
            packet = json.loads(data)
            self.packets.append(packet)
            if packet["type"] == "sealed":
                self._sealed(packet)
            elif packet["type"] == "batch":
                assert answer is not None
                self._answer(packet, descriptors, answer)
            elif packet["type"] in ("done", "failed"):
                return packet

    def _sealed(self, packet: Json) -> None:
        slot = self.slots.pop(0)
        self.outputs[packet["kind"]] = self.tenant.open(packet, slot)
        os.close(slot)
        self.slots.append(os.memfd_create("slot"))
        with contextlib.suppress(BrokenPipeError):  # it was the last thing to seal
            self.send({"type": "slot"}, [self.slots[-1]])

    def _answer(self, packet: Json, descriptors: list[int], answer: Answer) -> None:
        if descriptors:
            body = os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0)
            os.close(descriptors[0])
        else:
            body = base64.b64decode(packet["body"])
        described, out = answer(packet, body)
        fields = {"type": "outputs", "number": packet["number"], "outputs": described}
        if len(out) < 32_768:
            self.send({**fields, "body": b64(out)})
            return
        memory = os.memfd_create("outputs")
        os.write(memory, out)
        self.send(fields, [memory])
        os.close(memory)

    def of_type(self, kind: str) -> list[Json]:
        return [packet for packet in self.packets if packet["type"] == kind]

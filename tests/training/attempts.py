"""Attempts of one training: each a real process in the real sandbox, resumed from what an earlier one sealed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from tests.training.worker import PACKET_BYTES, Json, Worker, start_packet
from training.spec import load

DIGITS: Json = {"format": "npz", "modality": "image", "target": "label"}


class Attempt(Worker):
    """One process; `follow` gives each packet as it comes, what is sealed being in `outputs` by then."""

    def train(self, document: Json, dataset: bytes, about: Json, resume: bytes | None = None) -> None:
        """Starts it; `resume` is an opened checkpoint, sealed as the vault keeps it."""
        fields, descriptor = self.tenant.seal(dataset, "data")
        sealed, checkpoint = self.tenant.seal(resume or b"", "checkpoint")
        self.slots = [os.memfd_create("slot") for _ in range(2)]
        spec = load(document).model_dump(mode="json")
        inputs = [{"name": "dataset", **fields}]
        packet = start_packet(self.tenant, spec, about, inputs, resume=None if resume is None else sealed)
        self.send(packet, [descriptor, *([] if resume is None else [checkpoint]), *self.slots])
        os.close(descriptor)
        os.close(checkpoint)

    def follow(self) -> Iterator[Json]:
        self.child.channel.settimeout(60)
        while True:
            data, _, _, _ = socket.recv_fds(self.child.channel, PACKET_BYTES, 4)
            assert data, "the process ended without a last packet"
            packet = json.loads(data)
            self.packets.append(packet)
            if packet["type"] == "sealed":
                self._sealed(packet)
            yield packet
            if packet["type"] in ("done", "failed"):
                return

    def want(self, what: str) -> None:
        self.send({"type": "control", "want": what})

    def lines(self) -> list[str]:
        return [packet["text"] for packet in self.of_type("log")]

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.outputs["result"])
        return found

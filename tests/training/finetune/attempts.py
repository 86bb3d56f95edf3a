"""Attempts of one fine-tuning: each a real process in the real sandbox, resumed from what an earlier one sealed."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import sandbox
from tests.training.attempts import Attempt
from tests.training.worker import Json, Tenant, start_packet
from training.spec import load

ABOUT: Json = {"format": "chat-jsonl", "modality": "text", "target": "label", "fingerprint": None}


class Tuning(Attempt):
    """One process with as much memory as its document says."""

    def __init__(self, tenant: Tenant, document: Json, *, errors: int | None = None) -> None:
        self.document = load(document).model_dump(mode="json")
        self.memory_bytes = self.document["resources"]["memory_bytes"]
        self.tenant = tenant
        self.child = sandbox.start(
            [sys.executable, "-m", "training.run"],
            profile="job-cpu",
            memory_bytes=self.memory_bytes,
            **({} if errors is None else {"errors": errors}),
        )
        self.slots: list[int] = []
        self.packets: list[Json] = []
        self.outputs: dict[str, bytes] = {}

    def __enter__(self) -> Tuning:
        return self

    def tune(self, base: bytes, dataset: bytes, resume: bytes | None = None, **about: Any) -> None:
        sealed = [self.tenant.seal(dataset, "data"), self.tenant.seal(base, "model")]
        inputs = [{"name": name, **fields} for name, (fields, _) in zip(("dataset", "base"), sealed, strict=True)]
        descriptors = [descriptor for _, descriptor in sealed]
        packet = start_packet(
            self.tenant,
            self.document,
            {**ABOUT, **about},
            inputs,
            threads=self.document["resources"]["threads"],
            memory_bytes=self.memory_bytes,
        )
        if resume is not None:
            packet["resume"], checkpoint = self.tenant.seal(resume, "checkpoint")
            descriptors.append(checkpoint)
        self.slots = [os.memfd_create("slot") for _ in range(2)]
        self.send(packet, [*descriptors, *self.slots])
        for descriptor in descriptors:
            os.close(descriptor)

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.outputs["result"])
        return found

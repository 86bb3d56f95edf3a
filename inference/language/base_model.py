"""A base model that is loaded in a cell, with everything that its deployments share: weights, engine, words, grammars.

Each deployment enters and leaves it; the last one out ends it. An adapter is attached under the id of its version and
detached when its deployment goes, while the base serves on. `enter`, `leave` and `attach` are for any thread, `deliver`
runs on the loop's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from chat import TemplateRefused
from inference.errors import LoadFailed
from inference.language.constraint import Grammars
from inference.language.engine import Engine
from inference.language.llama import Weights
from inference.language.scheduler import Event
from inference.language.texts import TextThread
from inference.language.wording import Wording

ATTACH_SECONDS: Final = 60.0


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
        with ThreadPoolExecutor(1, "wording") as beside:  # the engine's making takes longer
            wording = beside.submit(Wording, weights.vocabulary, weights.metadata("tokenizer.chat_template"))
            self.engine = Engine(weights, loop, _deliver, slots=room.slots, cells=room.cells, threads=room.threads)
            self.wording = self._worded(wording)
        self.text = TextThread(loop)
        self.context_length = min(weights.context_length, self.engine.context.cells)
        self._grammars: Grammars | None = None
        self._users = 1
        self._lock = threading.Lock()  # guards _users
        self._on_end = on_end
        self._attached: dict[str, int] = {}  # adapters, and by how many deployments; the engine's thread's
        self.engine.start()

    def _worded(self, wording: Future[Wording]) -> Wording:
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
        self.text.end()
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

    def grammars(self) -> Grammars:
        """Made at the first use (a tenth of a second); in the text thread."""
        if self._grammars is None:
            self._grammars = Grammars(self.vocabulary)
        return self._grammars


def _deliver(events: list[Event]) -> None:
    """What the last steps made, to whoever asked; frames of one link go out in one write."""
    for event in events:
        event.sequence.owner.model.deliver(event)

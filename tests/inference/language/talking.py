"""The tiny model served in this process: requests as frames' fields in, and what a connection would have been sent.

The loop turns only while something is heard, so what comes between two requests is the test's to say. Engine and text
thread are the real ones.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from inference.connections import error_parts
from inference.errors import InferenceError
from inference.language.base_model import Base, Room
from inference.language.interface import LanguageInterface
from inference.language.requests import Generate
from inference.language.serving import Generation, LanguageModel
from inference.protocol import COUNT, COUNTED, DONE, ERROR, GENERATE, Buffer, Frame, FrameReader
from tests.inference.language import tiny
from tests.inference.language.words import Said, take

SECONDS = 60.0
INTERFACE = LanguageInterface(tiny.CONTEXT, len(tiny.TOKENS), chat=True, tools=False, weights_sha256="00")


class Link:
    """A connection whose other end keeps everything."""

    def __init__(self) -> None:
        self.generating: dict[int, Generation] = {}
        self.frames: list[Frame] = []
        self.heard: defaultdict[int, Said] = defaultdict(Said)
        self.ended: set[int] = set()
        self._reader = FrameReader()

    def send(self, parts: list[Buffer]) -> None:
        for frame in self._reader.feed(b"".join(parts)):
            self.frames.append(frame)
            if frame.kind == COUNTED:
                continue
            take(self.heard[frame.request], frame)
            if frame.kind == ERROR or (frame.kind == DONE and frame.fields()["last"]):
                self.ended.add(frame.request)

    def refuse(self, number: int, error: InferenceError) -> None:
        self.send(error_parts(number, error))


class Talk:
    """`ask`, then `hear`."""

    def __init__(self, content: bytes, room: Room) -> None:
        self.loop = asyncio.new_event_loop()
        self.failures: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self.ended = False
        self._unloaded: bool | None = None
        self.base = Base(tiny.weights(content), room, self.loop, on_end=lambda: setattr(self, "ended", True))
        self.model = LanguageModel("chat", "1", self.base, INTERFACE)
        self.link = Link()
        self._numbers = itertools.count(1)

    def ask(
        self,
        generate: Generate | bytes,
        *,
        link: Link | None = None,
        kind: int = GENERATE,
        deadline_ms: int = 0,
        **fields: Any,
    ) -> int:
        number, link = next(self._numbers), link or self.link
        body = generate if isinstance(generate, bytes) else generate.to_json()
        frame = Frame(kind, 0, number, deadline_ms, b"", memoryview(body))
        try:
            if kind == COUNT:
                self.model.count(link, frame, fields)
            else:
                self.model.generate(link, frame, {"stream": True} | fields, time.monotonic())
        except InferenceError as error:
            link.refuse(number, error)
        return number

    def until(self, holds: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(SECONDS):
                while not holds():
                    await asyncio.sleep(0.001)

        self.loop.run_until_complete(wait())

    def hear(self, *numbers: int) -> list[Said]:
        """All that was said to these requests, once they have ended."""
        self.until(lambda: self.link.ended.issuperset(numbers))
        return [self.link.heard[number] for number in numbers]

    def said(self, number: int) -> Said:
        """So far."""
        return self.link.heard[number]

    def say(self, generate: Generate | bytes, **fields: Any) -> Said:
        return self.hear(self.ask(generate, **fields))[0]

    @contextmanager
    def held(self) -> Iterator[None]:
        """The engine stands still until all that is asked inside is prepared."""
        going_on = threading.Event()

        def stand_still() -> None:
            going_on.wait(SECONDS)

        self.base.engine.order(stand_still)
        yield
        self.until(lambda: all(generation.sequences for generation in self.link.generating.values()))
        going_on.set()

    def unload(self, freed: Callable[[], object] = lambda: None) -> None:
        """As the agent has it unloaded."""
        self._unloaded = False

        def done() -> None:
            self._unloaded = True
            freed()

        self.model.retire(done)

    def close(self) -> None:
        if self._unloaded is None:
            self.unload()
        self.until(lambda: self._unloaded is True)
        self.base.engine.join(SECONDS)
        self.loop.close()


@contextmanager
def talking(content: bytes | None = None, *, slots: int = 4, cells: int = 1024) -> Iterator[Talk]:
    talk = Talk(tiny.gguf() if content is None else content, Room(slots=slots, cells=cells, threads=1))
    yield talk
    talk.close()

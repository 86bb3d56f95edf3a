"""Engines that answer at once, so that only what stands before them is measured: eight tokens, whatever is asked.

`python -m tests.bench.instant cell SOCKET` speaks a cell's frames to our web processes, `… backend PORT` OpenAI's chat
completions to another gateway. Both answer on one event loop and count nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from inference.protocol import DESCRIBE, DONE, GENERATE, TOKENS, FrameReader, frame_parts

TEXT = "The capital of France is Paris. "
INTERFACE = b'{"kind": "language", "context_length": 2048, "vocabulary": 49152, "chat": true, "tools": false}'
DONE_FIELDS: dict[str, Any] = {
    "index": 0,
    "reason": "stop",
    "prompt_tokens": 20,
    "completion_tokens": 8,
    "cached_tokens": 0,
    "queue_ms": 0.0,
    "prefill_ms": 0.0,
    "decode_ms": 0.0,
    "fingerprint": "fp_instant",
    "last": True,
}
COMPLETION = {
    "id": "chatcmpl-instant",
    "object": "chat.completion",
    "created": 1,
    "model": "instant",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28},
}


class InstantCell(asyncio.Protocol):
    """What a cell says to `describe` and, whole, to `generate`."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._reader = transport, FrameReader()

    def data_received(self, data: bytes) -> None:
        parts: list[Any] = []
        for frame in self._reader.feed(data):
            if frame.kind == DESCRIBE:
                parts += frame_parts(DESCRIBE, frame.request, {}, [INTERFACE])
                continue
            assert frame.kind == GENERATE, frame.kind
            parts += frame_parts(TOKENS, frame.request, {"index": 0, "text": TEXT})
            parts += frame_parts(DONE, frame.request, DONE_FIELDS)
        self._transport.writelines(parts)


class InstantBackend(asyncio.Protocol):
    """HTTP/1.1 with keep-alive: one answer a request, read by its length."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._held = transport, b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._held) < end + 4 + length:
                return
            self._held = self._held[end + 4 + length :]
            self._transport.write(ANSWER)


_BODY = json.dumps(COMPLETION).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY


async def _serve(what: str, place: str) -> None:
    loop = asyncio.get_running_loop()
    if what == "cell":
        server = await loop.create_unix_server(InstantCell, place)
    else:
        made: Callable[[], asyncio.Protocol] = InstantBackend
        server = await loop.create_server(made, "127.0.0.1", int(place))
    print("listens", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))

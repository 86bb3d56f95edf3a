"""The judge of every document of ours: the `openai` SDK's own response classes, strictly, and its client over a wire
that answers what a test says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2
import openai
import orjson
from pydantic import BaseModel

from strongroom.edge import http
from strongroom.edge.openai import errors
from strongroom.errors import StrongroomError

JSON = "application/json"
EVENTS = "text/event-stream"


def fits(model: type[BaseModel], document: Any) -> Any:
    """The document as the SDK's class reads it: no field missing, none of another type, none that it does not know."""
    written = document if isinstance(document, bytes) else orjson.dumps(document)
    found = model.model_validate_json(written, strict=True, extra="forbid")
    assert found.model_dump(exclude_unset=True, by_alias=True) == orjson.loads(written)
    return found


def events(stream: bytes) -> list[tuple[str | None, Any]]:
    """The events of a stream, each with its name, without the last `[DONE]`."""
    assert stream.endswith(b"\n\n")
    found = []
    for block in stream.removesuffix(b"\n\n").split(b"\n\n"):
        *named, data = block.split(b"\n")
        assert data.startswith(b"data: ")
        assert len(named) <= 1
        name = named[0].removeprefix(b"event: ").decode() if named else None
        if data != b"data: [DONE]":
            found.append((name, orjson.loads(data.removeprefix(b"data: "))))
    return found


class Wire(httpx2.BaseTransport):
    """Answers each request with the next of its answers, and with the last for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self._answers = list(answers)
        self.asked: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        status, headers, body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return httpx2.Response(status, headers=headers, content=body)

    def client(self, retries: int = 0) -> openai.OpenAI:
        return openai.OpenAI(
            api_key="sr_key",
            base_url="http://test/v1",
            max_retries=retries,
            http_client=httpx2.Client(transport=self),
        )


def answering(document: Any, media_type: str = JSON) -> Wire:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return Wire((200, {"content-type": media_type}, body))


def request(path: str = "/v1/chat/completions", headers: Sequence[tuple[bytes, bytes]] = ()) -> http.Request:
    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is not read")

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": list(headers)}
    return http.Request(scope, receive)


def failing(error: StrongroomError, path: str = "/v1/chat/completions") -> tuple[int, dict[str, str], bytes]:
    """An answer for `Wire`, as the face would send it."""
    asked = request(path)
    answer = errors.failure(error, asked)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return answer.status, headers | {"content-type": JSON, "x-request-id": asked.id}, answer.body

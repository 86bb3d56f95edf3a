"""Django behind ASGI in threads that stay: whole requests, whole answers, a bounded queue."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from strongroom import ids
from strongroom.rest.serving import DjangoInThreads

gate = threading.Event()
seen: list[str] = []


def echo(request: HttpRequest) -> HttpResponse:
    seen.append(threading.current_thread().name)
    response = HttpResponse(request.body, headers={"X-Query": request.GET.get("q", "")})
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([b"one ", b"two"]))


def waiting(request: HttpRequest) -> HttpResponse:
    gate.wait(20)
    return HttpResponse(b"done")


urlpatterns = [path("echo", echo), path("streamed", streamed), path("waiting", waiting)]


@pytest.fixture(autouse=True)
def routes() -> Iterator[None]:
    gate.clear()
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=["strongroom.rest.requests.RequestMiddleware"]):
        yield
    gate.set()


def head(path: str, *headers: tuple[bytes, bytes], query: bytes = b"", method: str = "POST") -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }


async def call(application: DjangoInThreads, scope: dict[str, Any], *messages: dict[str, Any]) -> list[dict[str, Any]]:
    waiting = list(messages or [{"type": "http.request"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_request_goes_in_whole_and_its_answer_comes_out_whole() -> None:
    scope = head("/echo", (b"content-length", b"6"), query=b"q=%C3%A9")
    start, body = asyncio.run(call(DjangoInThreads(2), scope, part(b"abc", True), part(b"def")))
    assert (start["status"], body["body"]) == (200, b"abcdef")
    headers = start["headers"]
    assert (b"content-length", b"6") in headers
    assert [value.partition(b";")[0] for name, value in headers if name == b"set-cookie"] == [b"a=1", b"b=2"]
    assert all(isinstance(name, bytes) and name == name.lower() for name, _ in headers)


def test_a_stream_comes_out_whole_with_its_length() -> None:
    start, body = asyncio.run(call(DjangoInThreads(2), head("/streamed", method="GET")))
    assert body["body"] == b"one two"
    assert (b"content-length", b"7") in start["headers"]


def test_a_caller_who_leaves_before_the_end_of_the_body_gets_nothing() -> None:
    sent = asyncio.run(call(DjangoInThreads(2), head("/echo"), part(b"abc", True), {"type": "http.disconnect"}))
    assert sent == []


def test_the_threads_are_few_and_used_again() -> None:
    seen.clear()

    async def many() -> None:
        application = DjangoInThreads(3)
        await asyncio.gather(*(call(application, head("/echo")) for _ in range(40)))

    asyncio.run(many())
    assert len(seen) == 40
    assert len(set(seen)) <= 3


def test_one_too_many_is_told_to_come_again() -> None:
    async def crowd() -> list[list[dict[str, Any]]]:
        application = DjangoInThreads(1, max_waiting=1)
        calls = [asyncio.create_task(call(application, head("/waiting"))) for _ in range(3)]
        (refused, *_), _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
        others = [await task for task in calls if task is not refused]
        again = await call(application, head("/echo"))
        return [refused.result(), *others, again]

    refused, *rest = asyncio.run(crowd())
    assert refused[0]["status"] == 429
    headers = dict(refused[0]["headers"])
    assert headers[b"retry-after"] == b"1"
    assert ids.parse("req", headers[b"x-request-id"].decode()) is not None
    assert b"concurrency_limited" in refused[1]["body"]
    assert [answer[0]["status"] for answer in rest] == [200, 200, 200]


def test_a_head_that_cannot_be_read_is_a_400() -> None:
    start, body = asyncio.run(call(DjangoInThreads(1), head("/echo", (b"cookie", b"\xff=\xfe; a=b"), query=b"\xff")))
    assert start["status"] in (200, 400)
    assert b"Traceback" not in body["body"]

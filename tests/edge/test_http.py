"""Requests on the bare protocol: bounded bodies, strict queries, and what paths are the edge's."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest

from strongroom.edge import http, openapi, routes, waiting
from strongroom.errors import Invalid, Malformed, StrongroomError, TooLarge
from strongroom.rest.schema import EDGE_ROUTES


def request(*pieces: bytes, query: bytes = b"", cut: bool = False, **headers: str) -> http.Request:
    """A request whose body comes in `pieces`; with `cut` the caller goes away after them."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.disconnect"} if cut else {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": query, "headers": sent}
    return http.Request(scope, receive)


def test_a_body_is_gathered_up_to_its_limit() -> None:
    assert asyncio.run(request(b"ab", b"cd").body(4)) == b"abcd"
    with pytest.raises(TooLarge) as caught:
        asyncio.run(request(b"ab", b"cde").body(4))
    assert caught.value.errors[0].hint == "at most 4 bytes"
    with pytest.raises(TooLarge):
        asyncio.run(request(content_length="5").body(4))


def test_a_body_that_breaks_off_is_no_body() -> None:
    with pytest.raises(http.Disconnected):
        asyncio.run(request(b"ab", cut=True).body(4))
    with pytest.raises(http.Disconnected):
        asyncio.run(request(cut=True).body(4))


def test_queries_are_strict() -> None:
    assert request(query=b"a=1&b=%20").query(("a", "b")) == {"a": "1", "b": " "}
    with pytest.raises(Invalid) as caught:
        request(query=b"aa=1&a=2&a=3").query(("a", "b"))
    assert [(error.path, error.code) for error in caught.value.errors] == [
        ("?aa", "extra_forbidden"),
        ("?a", "repeated"),
    ]


def test_what_is_no_json_says_so() -> None:
    assert http.parse(b'{"a": 1}') == {"a": 1}
    for body in (b"[", b"\xff", b"", b'{"a": NaN}'):
        with pytest.raises(Malformed):
            http.parse(body)


def test_every_error_is_a_problem_with_the_requests_id() -> None:
    asked = request(x_request_id="req_01k9zq6v8m3x5r2t7w4y0b1c2d")
    answer = http.failure(StrongroomError("gone", code="model_loading"), asked)
    assert (answer.status, answer.media_type) == (503, b"application/problem+json")
    assert (b"retry-after", b"1") in answer.headers
    assert b"req_01k9zq6v8m3x5r2t7w4y0b1c2d" in answer.body


def test_a_request_leaves_nothing_for_the_collector() -> None:
    """A cycle for each request fills memory until the next collection, which then holds up all others for long."""

    class Cycle:  # as uvicorn's: it knows the scope that edge/server.py puts a way back to it in
        scope: http.Scope

    cycle = Cycle()
    cycle.scope = {"method": "GET", "path": "/", "headers": [], "strongroom.whole": partial(isinstance, cycle)}
    left = weakref.ref(cycle)
    asked = http.Request(cycle.scope, request().receive)
    gc.disable()
    try:
        del asked, cycle
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/api/v1/deployments/digits/predict", ("digits",)),
        ("/api/v1/predictions", ()),
        ("/api/v1/predictions/pred_x/output", ("pred_x",)),
        ("/api/v1/jobs/job_x/events", ("job_x",)),
        ("/v2/models/digits/versions/1/infer", ("digits", "1")),
        ("/v2/anything/else", ()),
    ],
)
def test_edge_paths_are_found_with_their_parameters(path: str, arguments: tuple[str, ...]) -> None:
    found = routes.find(path)
    assert found is not None
    assert found[1] == arguments


@pytest.mark.parametrize(
    "path",
    ["/", "/api/v1/jobs", "/api/v1/jobs/job_x", "/api/v1/deployments/digits", "/api/v1/deployments//predict", "/v22"],
)
def test_other_paths_are_djangos(path: str) -> None:
    assert routes.find(path) is None


def test_the_schema_shows_every_operation_of_the_native_face_and_no_other() -> None:
    assert openapi
    shown = {(route.path, route.method.upper()) for route in EDGE_ROUTES}
    assert shown == {(path, method) for path, methods in routes.paths().items() for method in methods}


def test_only_documents_with_an_id_and_a_state_can_be_waited_for() -> None:
    id = "01k9zq6v8m3x5r2t7w4y0b1c2d"
    assert waiting.row_of({"id": f"job_{id}", "state": "queued"}) is not None
    dataset = waiting.row_of({"id": f"ds_{id}", "state": "checking", "version": 3})
    assert dataset is not None
    assert (dataset.kind, dataset.number) == ("dataset", 3)
    others: tuple[Any, ...] = (
        {"id": f"key_{id}", "state": "x"},
        {"id": f"job_{id}"},
        {"data": []},
        [],
        None,
        {"id": 7, "state": ""},
    )
    for other in others:
        assert waiting.row_of(other) is None


def test_a_stream_that_waits_ends_where_its_reader_goes_away() -> None:
    """Not with its next piece, for which it might wait long, and hold its place."""

    async def whole() -> None:
        closed = asyncio.Event()
        has_left, sent = asyncio.Event(), []

        async def pieces() -> AsyncGenerator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                closed.set()

        async def receive() -> dict[str, Any]:
            await has_left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message.get("body"))

        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        sending = asyncio.create_task(http.Stream(pieces(), b"text/plain").send(send, http.Request(scope, receive)))
        while b"first" not in sent:
            await asyncio.sleep(0)
        has_left.set()
        async with asyncio.timeout(5):
            await sending
        assert closed.is_set()
        assert sent == [None, b"first"]

    asyncio.run(whole())

"""Requests made to hurt: each is refused with a reason, in the memory and time of its own length, never by a fall."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from inference.errors import InputRefused
from inference.signature import Signature, Tensor
from strongroom.edge import arrays, http, principals, snapshot
from strongroom.edge.limits import Places
from strongroom.edge.open_inference import Asked
from strongroom.edge.snapshot import Deployments
from strongroom.errors import Malformed, NotFound, StrongroomError

X = Tensor("x", "FP32", (-1, 2))
SIGNATURE = Signature((X,), (Tensor("y", "FP32", (-1, 2)),))
SERVED: Any = SimpleNamespace(signature=SIGNATURE)


def infer(**fields: Any) -> Any:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **fields.pop("tensor", {})}
    return Asked(json.dumps({"inputs": [given], **fields}).encode()).read(SERVED)


@pytest.mark.parametrize("depth", [17, 200, 1000])
def test_brackets_nested_without_end_are_left_to_the_parser_that_counts_them(depth: int) -> None:
    body = b'{"inputs": {"x": ' + b"[" * depth + b"1" + b"]" * depth + b"}}"
    assert arrays.inputs(body, [X]) is None
    assert Asked(body)._fast(SERVED) is None


@pytest.mark.parametrize(
    "text", [["a" * 100_000, *[""] * 10_000], [["a" * 100_000, 1], *[[0, 0]] * 10_000], "a" * 100_000]
)
def test_a_long_text_among_numbers_takes_no_more_room_than_it_has(text: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputRefused, match="holds text, expected numbers"):
            SIGNATURE.arrays({"x": text})
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_of_a_million_unknown_names_the_first_are_told() -> None:
    with pytest.raises(InputRefused) as told:
        SIGNATURE.arrays({"k" * 1_000_000: 0, **{f"k{number}": 0 for number in range(100_000)}})
    assert len(told.value.problems) == 21
    assert all(len(problem.path) < 200 for problem in told.value.problems)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tensor": {"shape": [1] * 70 + [2]}}, "has shape"),
        ({"tensor": {"shape": [0, 2**62], "data": []}}, "has shape"),
        ({"tensor": {"shape": [0, 2], "data": []}}, "has no items"),
        ({"tensor": {"parameters": 5}}, None),
        ({"outputs": [{"name": "y", "parameters": 5}]}, "'parameters' must be an object"),
        ({"outputs": [{"name": "y", "parameters": [1]}]}, "'parameters' must be an object"),
        ({"parameters": "x"}, "'parameters' must be an object"),
        ({"outputs": [{"name": "y"}] * 2}, "names an output twice"),
        ({"outputs": "y"}, "must be a list"),
    ],
)
def test_open_inference_refuses_what_it_cannot_shape(fields: dict[str, Any], said: str | None) -> None:
    if said is None:  # not asked for: the fast path does not look at what it does not need
        assert list(infer(**fields)) == ["x"]
        return
    with pytest.raises(StrongroomError, match=said):
        infer(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"tensor": {field: "x" * 100_000}} for field in ("name", "datatype", "shape")]
    + [{"outputs": [{"name": "y" * 100_000}]}],
)
def test_a_refusal_does_not_repeat_all_that_was_sent(fields: dict[str, Any]) -> None:
    with pytest.raises(StrongroomError) as told:
        infer(**fields)
    assert len(told.value.detail) < 300


def test_a_field_named_by_a_null_character_is_read_like_any_other() -> None:
    assert list(infer(**{"\0": 1})) == ["x"]


def test_an_empty_tensor_of_endless_rows_is_no_tensor() -> None:
    wide = Signature((Tensor("x", "FP32", (-1, -1)),), SIGNATURE.outputs)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 2**62], "data": []}]}
    with pytest.raises(StrongroomError, match="has no items"):
        Asked(json.dumps(body).encode()).read(SimpleNamespace(signature=wide))  # type: ignore[arg-type]  # all it reads


def test_a_query_of_very_many_fields_is_malformed() -> None:
    scope = {"method": "PUT", "path": "/", "headers": [], "query_string": b"&".join([b"a=1"] * 51)}
    with pytest.raises(Malformed, match="over 50 fields"):
        http.Request(scope, None).query(["a"])  # type: ignore[arg-type]  # its body is not asked for


def test_a_name_that_nothing_can_have_is_not_found_without_a_look() -> None:
    deployments = Deployments()
    for name in ("x" * 64, "X", "\0", "../a", "a" * 1_000_000):
        with pytest.raises(NotFound) as told:
            asyncio.run(deployments.find(uuid4(), name))
        assert len(str(told.value)) < 100
    assert not deployments._entries


def test_who_asks_for_names_by_the_thousand_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_ENTRIES", 10)
    served = object()
    monkeypatch.setattr(snapshot, "load", lambda tenant, name: served if name == "digits" else None)
    deployments, others = Deployments(), str(uuid4())

    async def ask() -> None:
        await deployments._read(others, "digits", None)
        for number in range(35):
            await deployments._read(str(uuid4()), f"n{number}", None)

    asyncio.run(ask())
    assert len(deployments._entries) <= 11
    assert deployments._entries[(others, "digits")].served is served


def test_a_long_forwarded_header_is_read_and_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principals, "TRUSTED", frozenset({"10.0.0.1"}))
    principals._address.cache_clear()
    long = b"1.2.3.4, " * 1000 + b"9.9.9.9"
    scope = {"method": "GET", "path": "/", "headers": [(b"x-forwarded-for", long)], "client": ("10.0.0.1", 1)}
    assert principals.address(http.Request(scope, None)) == "9.9.9.9"  # type: ignore[arg-type]  # no body
    assert principals._address.cache_info().currsize == 0
    principals._address.cache_clear()


def test_large_bodies_of_nobody_in_particular_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in memory before it is known who sends them."""
    from strongroom.edge import django as guarded

    started: list[Any] = []

    async def django(scope: Any, receive: Any, send: Any) -> None:
        started.append(scope)
        await asyncio.sleep(60)

    monkeypatch.setattr(guarded, "_django", django)
    monkeypatch.setattr(guarded, "LARGE", Places("large bodies", of_all=2, of_one=2))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    def posted(length: int) -> Any:
        headers = [(b"content-length", b"%d" % length)]
        return {"type": "http", "method": "POST", "path": "/api/v1/jobs", "headers": headers, "query_string": b""}

    async def whole() -> None:
        waiting = [asyncio.ensure_future(guarded.to_django(posted(100_000), None, send)) for _ in range(2)]  # type: ignore[arg-type]  # nothing is read
        await asyncio.sleep(0)
        await guarded.to_django(posted(100_000), None, send)  # type: ignore[arg-type]  # as above
        waiting.append(asyncio.ensure_future(guarded.to_django(posted(1000), None, send)))  # type: ignore[arg-type]  # as above
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(whole())
    assert [message["status"] for message in sent if "status" in message] == [429]
    assert len(started) == 3

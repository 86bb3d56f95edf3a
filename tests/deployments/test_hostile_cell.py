"""A cell that a hostile model has taken over: whatever it tells agent and edge, they go on for the others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import msgpack  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest

from inference.language.requests import Done, Logprob, Tokens
from inference.language.serving import tokens_parts
from inference.protocol import (
    ANSWER,
    DONE,
    ERROR,
    HEAD,
    STATS,
    TOKENS,
    AnswerReader,
    Frame,
    FrameReader,
    Header,
    ProtocolError,
    encode,
    frame_head,
    pack_answer,
    pack_answer_outputs,
    pack_tensors,
    padded,
)
from strongroom.deployments.answers import Unheard
from strongroom.deployments.cells import Cell, CellLost, LoadRefused
from strongroom.deployments.replies import One, Reply
from strongroom.deployments.speech import Speech, farewell
from strongroom.errors import Invalid, Unavailable


def asked(answer: Callable[[int], bytes]) -> int | None:
    """What the agent makes of it when it asks such a cell how it is; `answer` gets the request's number."""

    async def whole() -> int | None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        zygote: Any = SimpleNamespace(kill=lambda pid: None)
        cell = Cell(uuid4(), "cpu", Path("/nonexistent/cell.sock"), 0, ours, zygote)
        loop = asyncio.get_running_loop()
        with theirs:
            asking = asyncio.ensure_future(cell.resident_bytes(5))
            (frame,) = FrameReader().feed(await loop.sock_recv(theirs, 65536))
            await loop.sock_sendall(theirs, answer(frame.request))
            try:
                return await asking
            finally:
                cell.end()

    return asyncio.run(whole())


def test_a_number_is_taken_where_a_row_can_hold_it() -> None:
    assert asked(lambda number: encode(STATS, number, {"resident_bytes": 5})) == 5


@pytest.mark.parametrize("told", [2**64 - 1, 2**63, -1, True, None, "5", 1.5, [5], {"a": 5}])
def test_anything_else_is_no_number(told: Any) -> None:
    assert asked(lambda number: encode(ANSWER, number, {"resident_bytes": told})) is None


@pytest.mark.parametrize("header", [b"\xc1", b"\x91\x01", b"", b"\x81\x01\x01", b"\x91" * 900])
def test_a_header_that_is_none_is_the_end_of_the_cell(header: bytes) -> None:
    def frame(number: int) -> bytes:
        return HEAD.pack(HEAD.size + len(header), STATS, 0, len(header), number, 0) + header

    with pytest.raises(CellLost):
        asked(frame)


@pytest.mark.parametrize("code", ["x" * 41, "", "Ünder", "a\nb", 7, None, ["a"], {"a": 1}])
def test_a_code_that_is_none_becomes_ours_and_a_text_is_one_short_line(code: Any) -> None:
    with pytest.raises(LoadRefused) as told:
        asked(lambda number: encode(ERROR, number, {"code": code, "message": "line\nline " + "é" * 5000}))
    assert told.value.code == "load_failed"
    assert str(told.value).isascii()
    assert str(told.value).isprintable()
    assert len(str(told.value)) <= 300


def test_its_own_codes_are_kept() -> None:
    with pytest.raises(LoadRefused) as told:
        asked(lambda number: encode(ERROR, number, {"code": "artefact_corrupt", "message": b"x"}))
    assert told.value.code == "artefact_corrupt"


def answered(outputs: dict[str, Any]) -> Any:
    """What the edge makes of an answer with these outputs."""

    async def whole() -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        described, body = pack_tensors(outputs)
        header = pack_answer(pack_answer_outputs(described), 1, 1, 1)
        frame = frame_head(ANSWER, 1, 0, Header(len(header), padded(header)), sum(map(len, body)))
        (read,) = FrameReader().feed(b"".join([*frame, *map(bytes, body)]))
        One(future, 0.0, AnswerReader()).took(read)
        return await future

    return asyncio.run(whole())


@pytest.mark.parametrize(
    "output",
    [
        np.zeros((60_000_000, 0), "f4"),
        np.zeros((1, 2000, 3000, 0), "f4"),
        np.zeros((300_000, 1), "?"),
        np.zeros((2, 2_500_000), "?"),
        np.full((1, 260_000), b"", dtype=object),
    ],
    ids=["rows of nothing", "lists of nothing", "rows", "numbers", "texts"],
)
def test_an_answer_that_would_fill_the_memory_of_the_front_door_is_refused(output: Any) -> None:
    with pytest.raises(Invalid, match=r"answered with .* send fewer items"):
        answered({"y": output})


def test_a_large_answer_is_taken() -> None:
    assert answered({"y": np.ones((1000, 1000), "f4")}).outputs["y"].sum() == 1_000_000


ENDED = {"reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 0} | dict.fromkeys(
    ("queue_ms", "prefill_ms", "decode_ms"), 0.0
)


def reply(deadline: float = 0.0, n: int = 2) -> Reply:
    return Reply(lambda *_: None, 1, deadline, n, windowed=True)


def frame(kind: int, fields: dict[str, Any], body: bytes = b"") -> Frame:
    (read,) = FrameReader().feed(encode(kind, 1, fields, [body]))
    return read


def piece(index: int = 0) -> Frame:
    return frame(TOKENS, {"index": index, "text": "a"})


def long_piece() -> Frame:
    return frame(TOKENS, {"index": 0}, msgpack.packb({"text": "a" * (15 << 20), "logprobs": []}))


def end(index: int = 0, *, last: bool = False) -> Frame:
    return frame(DONE, {"index": index, "fingerprint": "fp", "last": last, **ENDED})


def told(*entry: Any) -> Frame:
    return frame(TOKENS, {"index": 0}, msgpack.packb({"text": "a", "logprobs": [entry]}))


LIKELIEST = [1, b"a", -0.5]


@pytest.mark.parametrize(
    "frames",
    [
        [piece(2)],
        [piece(-1)],
        [end(2)],
        [end(), end()],
        [end(), piece()],
        [told(1, 300_000_000, 0.0, [])],
        [told(1, [7, 8], 0.0, [])],
        [told("1", b"a", 0.0, [])],
        [told(1, b"a" * 5000, 0.0, [])],
        [told(1, b"a", 0.0, [[1, 1 << 40, 0.0]])],
        [told(1, b"a", 0.0, [LIKELIEST] * 21)],
        [frame(TOKENS, {"index": 0}, b"\x90" * (17 << 20))],
        [piece()] * 3000,
        [long_piece()] * 6,
    ],
)
def test_a_reply_that_says_what_it_cannot_ends_the_connection(frames: list[Frame]) -> None:
    """What it says lies in the memory of the front door, which other tenants share."""

    async def whole() -> None:
        heard = reply()
        with pytest.raises(ProtocolError):
            list(map(heard.took, frames))

    asyncio.run(whole())


def test_what_a_late_reply_used_is_heard_yet() -> None:
    """Else whoever has a budget pays for all that it might have cost."""

    async def whole() -> None:
        heard = reply(deadline=5.0, n=1)
        reading = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        assert not heard.late()
        with pytest.raises(Unavailable, match="the deadline passed"):
            await reading
        assert heard.deadline > 5.0
        assert heard.took(end(last=True))
        parts = [part async for parts in heard for part in parts]
        assert [part.completion_tokens for part in parts if isinstance(part, Done)] == [1]

    asyncio.run(whole())


def test_a_late_reply_that_says_nothing_any_more_is_given_up() -> None:
    async def whole() -> None:
        heard = reply(n=1)
        heard.cancel()
        assert not heard.late()
        assert heard.late()
        with pytest.raises(Unheard):
            await anext(heard)

    asyncio.run(whole())


def test_who_left_before_he_heard_that_it_is_late_hears_on_what_was_used() -> None:
    async def whole() -> None:
        heard = reply(n=1)
        assert not heard.late()
        heard.cancel()
        assert heard.took(end(last=True))
        assert [part.completion_tokens async for parts in heard for part in parts if isinstance(part, Done)] == [1]

    asyncio.run(whole())


def test_a_late_answer_is_a_failure_whatever_its_end_says() -> None:
    counted: dict[str, Any] = {}

    async def whole() -> None:
        heard = reply(n=1)
        call: Any = SimpleNamespace(leave=lambda: None, count=counted.update)
        speech = Speech(call, [heard], 1)
        heard.late()
        with pytest.raises(Unheard):
            await speech.whole()
        speech.close()
        heard.took(frame(DONE, {"index": 0, "fingerprint": "fp", "last": True, **ENDED, "reason": "cancelled"}))
        await farewell()

    asyncio.run(whole())
    assert (counted["failed"], counted["tokens_out"]) == (True, 1)


def test_an_answer_with_very_many_log_probabilities_is_taken() -> None:
    one = Logprob(1, b"token", -0.5, ((1, b"token", -0.5),) * 20)

    async def whole() -> None:
        heard = reply(n=1)
        for read in FrameReader().feed(b"".join(tokens_parts(1, 0, "text", (one,) * 40_000))):
            heard.took(read)
        parts = await anext(heard)
        assert "".join([part.text for part in parts if isinstance(part, Tokens)]) == "text"
        assert sum([len(part.logprobs) for part in parts if isinstance(part, Tokens)]) == 40_000

    asyncio.run(whole())

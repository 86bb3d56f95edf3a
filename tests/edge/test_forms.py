"""Forms as they arrive: however the bytes are cut, the same parts; whatever the bytes are, a form or a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.edge import forms, http
from strongroom.errors import Malformed, StrongroomError, TooLarge, Unsupported
from tests.depth import examples

BOUNDARY = "cut-here"


def written(parts: Sequence[tuple[str, str | None, bytes]]) -> bytes:
    body = b""
    for name, filename, content in parts:
        said = f'Content-Disposition: form-data; name="{name}"' + (
            "" if filename is None else f'; filename="{filename}"'
        )
        body += f"--{BOUNDARY}\r\n{said}\r\nContent-Type: text/plain\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def read(
    pieces: Sequence[bytes], content_type: str = f"multipart/form-data; boundary={BOUNDARY}", limit: int = 1 << 20
) -> list[tuple[str, str | None, bytes]]:
    """The parts with their content."""
    waiting = list(pieces)

    async def receive() -> dict[str, Any]:
        piece = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    headers = [(b"content-type", content_type.encode())]
    request = http.Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)

    async def gather() -> list[tuple[str, str | None, bytes]]:
        found: list[tuple[str, str | None, bytes]] = []
        async for one in forms.parts(request, limit):
            if isinstance(one, forms.Part):
                found.append((one.name, one.filename, b""))
            else:
                name, filename, content = found[-1]
                found[-1] = (name, filename, content + one)
        return found

    return asyncio.run(gather())


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\\r\n;', exclude_categories=["C"]), min_size=1, max_size=20
)
CONTENTS = st.binary(max_size=60) | st.sampled_from(
    [b"", b"\r\n", b"--", b"\r\n--cut-her", b"\r\n--cut-herX\r\n-", b"\r" * 9]
)
PARTS = st.lists(st.tuples(NAMES, st.none() | NAMES, CONTENTS), min_size=1, max_size=5)


@settings(max_examples=examples(200))
@given(PARTS, st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_however_a_form_is_cut_its_parts_are_the_same(
    parts: list[tuple[str, str | None, bytes]], sizes: list[int]
) -> None:
    body, at = written(parts), 0
    pieces: list[bytes] = []
    while at < len(body):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(body[at : at + size])
        at += size
    assert read(pieces) == parts


@settings(max_examples=examples(200))
@given(PARTS, st.data())
def test_a_form_that_ends_early_is_refused(parts: list[tuple[str, str | None, bytes]], data: st.DataObject) -> None:
    body = written(parts)
    end = data.draw(st.integers(0, len(body) - 4))
    with pytest.raises(Malformed):
        read([body[:end]])


@settings(max_examples=examples(300))
@given(st.binary(max_size=400), st.integers(1, 50))
def test_no_bytes_make_anything_but_a_form_or_a_refusal(noise: bytes, size: int) -> None:
    for body in (noise, b"--cut-here\r\n" + noise, written([("a", None, b"1")]).replace(b"1", noise)):
        try:
            read([body[at : at + size] for at in range(0, len(body), size)])
        except StrongroomError as error:
            assert error.status == 400  # noqa: PT017  # either way is right, but this is the only refusal


def test_all_that_is_not_content_is_bounded() -> None:
    with pytest.raises(TooLarge):
        read([b"\r\n" * 1000] * 10, limit=10_000)
    closed = written([("a", None, b"1")])
    assert read([closed, b"after the end"]) == [("a", None, b"1")]
    with pytest.raises(TooLarge):
        read([closed, *[b"x" * 1000] * 20], limit=10_000)


def test_a_content_type_that_is_no_form_is_refused() -> None:
    with pytest.raises(Unsupported):
        read([written([])], content_type="application/json")

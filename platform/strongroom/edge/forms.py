"""multipart/form-data as it arrives: each part with its name, then its bytes, piece by piece, in flat memory.

What a file holds goes from the socket to whoever reads the form, and to no disk in the clear. Boundary, headers, parts
and the whole are bounded; what is not a form to its last boundary is refused. Knows no field of any form.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from strongroom.edge import http
from strongroom.errors import Malformed

MEDIA_TYPE = "multipart/form-data"
MOST_PARTS = 16
MOST_HEADERS = 8  # of a part
MOST_HEADER_BYTES = 4096
MOST_BOUNDARY_BYTES = 70  # RFC 2046
OVERHEAD_BYTES = MOST_PARTS * (MOST_HEADERS * MOST_HEADER_BYTES)  # beside what the parts hold
PLAIN = (b"", b"7bit", b"8bit", b"binary")

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # its warnings repeat bytes of the body


@dataclass(frozen=True, slots=True)
class Part:
    """What begins: a file where it has a file's name, else a field."""

    name: str
    filename: str | None


async def parts(request: http.Request, limit: int) -> AsyncIterator[Part | bytes]:
    """Each part, followed by the pieces of its content. Malformed, Unsupported, TooLarge, Disconnected."""
    reading = _Reading(_boundary(request))
    received = 0
    async for piece in request.pieces():
        received += len(piece)
        if received > limit:
            raise http.too_large(limit)
        for found in reading.take(piece):
            yield found
    if not reading.has_ended:
        raise _broken("it ends before its last boundary")


def _boundary(request: http.Request) -> bytes:
    if request.media_type != MEDIA_TYPE:
        raise http.unsupported(request.media_type, [MEDIA_TYPE])
    if request.header(b"content-encoding").lower() not in {"", "identity"}:
        raise http.unsupported(f"content-encoding {request.header(b'content-encoding')}", ["no content-encoding"])
    _, options = parse_options_header(request.header(b"content-type"))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MOST_BOUNDARY_BYTES:
        raise Malformed(
            f"the content type must name a boundary of 1 to {MOST_BOUNDARY_BYTES} characters",
            code="malformed_header",
            hint="let your HTTP library write the form",
        )
    return boundary


def _broken(why: str) -> Malformed:
    return Malformed(f"the form cannot be read: {why}", hint="let your HTTP library write the form")


class _Reading:
    """The parser with what it found since the last piece."""

    def __init__(self, boundary: bytes) -> None:
        self.has_ended = False
        self._found: list[Part | bytes] = []
        self._parts = 0
        self._name = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._content,
                "on_end": self._ends,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=MOST_HEADER_BYTES,
        )

    def take(self, piece: bytes) -> list[Part | bytes]:
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _broken(str(error).splitlines()[0] if str(error) else "it is not well formed") from None
        found, self._found = self._found, []
        return found

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _broken(f"it has over {MOST_PARTS} parts")
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise _broken("a part has no 'Content-Disposition: form-data' with a name")
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in PLAIN:
            raise _broken("a part has a content-transfer-encoding: send its bytes as they are")
        filename = options.get(b"filename")
        self._found.append(Part(_text(options[b"name"]), None if filename is None else _text(filename)))

    def _content(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _ends(self) -> None:
        self.has_ended = True


def _text(given: bytes) -> str:
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise _broken("a part's name is not UTF-8") from None

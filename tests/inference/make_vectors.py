"""`python -m tests.inference.make_vectors` writes tests/vectors/frames/: frames as hex beside what they mean.

The good ones are built here by hand from the page (struct and msgpack only), not by the code that they test; the
broken ones are made from the first good one by a table.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types

FOLDER = Path(__file__).parent.parent / "vectors" / "frames"
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 3], "offset": 0}
TEXT = {"name": "t", "datatype": "BYTES", "shape": [2], "offset": 64, "size": 11}
INFER = {"model": "digits", "version": "1", "inputs": [TENSOR], "priority": 0, "principal": 7}
ANSWER = {"outputs": [TENSOR | {"name": "y"}], "queue_us": 5, "compute_us": 6, "batch": 1}
FLOATS = struct.pack("<3f", 1, -2, 0.5)
TEXTS = struct.pack("<I1sI2s", 1, b"a", 2, b"bc")

# name, kind, request, deadline_ms, header, body
GOOD: list[tuple[str, int, int, int, dict[str, Any], bytes]] = [
    ("infer with one tensor", 1, 1, 30_000, INFER, FLOATS),
    ("infer with text behind it", 1, 2, 0, INFER | {"inputs": [TENSOR, TEXT]}, FLOATS + bytes(52) + TEXTS),
    ("infer with a file", 1, 2**63, 1, {"model": "d", "version": "1", "content_type": "text/csv"}, b"a,b\n1,2\n"),
    ("answer", 2, 1, 0, ANSWER, FLOATS),
    ("error", 3, 1, 0, {"code": "queue_full", "message": "4096 requests wait already", "tensor": None}, b""),
    ("cancel", 8, 1, 0, {}, b""),
]
# name, offset, bytes written there (None: cut there), what the reader says
BROKEN: list[tuple[str, int, bytes | None, str]] = [
    ("over the limit", 0, struct.pack("<I", (64 << 20) + 1), "over the limit"),
    ("shorter than a head", 0, struct.pack("<I", 19), "cannot hold a header"),
    ("shorter than its header", 0, struct.pack("<I", 40), "cannot hold a header"),
    ("unknown kind", 4, b"\x09", "unknown kind"),
    ("kind zero", 4, b"\x00", "unknown kind"),
    ("unknown flags", 5, b"\x01", "unknown kind 1 or flags 1"),
    ("header that is no msgpack", 20, b"\xc1", "not msgpack"),
    ("header that is a list", 20, b"\x95", "not a map|not msgpack"),
    ("body cut off", -1, None, "body of 11"),
]


def frame(kind: int, request: int, deadline_ms: int, header: dict[str, Any], body: bytes) -> bytes:
    packed = msgpack.packb(header)
    if kind == 2:  # an answer's three numbers have fixed widths and stand last
        numbers = ((b"\xa8queue_us\xce", ">I"), (b"\xaacompute_us\xce", ">I"), (b"\xa5batch\xcd", ">H"))
        packed = b"\x84" + msgpack.packb({"outputs": header["outputs"]})[1:]
        packed += b"".join(mark + struct.pack(form, header[mark[1:-1].decode()]) for mark, form in numbers)
    padding = bytes(-(20 + len(packed)) % 64) if body else b""
    length = 20 + len(packed) + len(padding) + len(body)
    return struct.pack("<IBBHQI", length, kind, 0, len(packed), request, deadline_ms) + packed + padding + body


def broken(good: bytes, offset: int, change: bytes | None) -> bytes:
    if change is not None:
        return good[:offset] + change + good[offset + len(change) :]
    cut = good[:offset]
    return struct.pack("<I", len(cut)) + cut[4:]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    good = [
        {
            "name": name,
            "hex": frame(kind, request, deadline, header, body).hex(),
            "kind": kind,
            "request": request,
            "deadline_ms": deadline,
            "header": header,
            "body": body.hex(),
        }
        for name, kind, request, deadline, header, body in GOOD
    ]
    first = frame(*GOOD[0][1:])
    refused = [
        {"name": name, "hex": broken(first, offset, change).hex(), "says": says}
        for name, offset, change, says in BROKEN
    ]
    (FOLDER / "good.json").write_text(json.dumps(good, indent=1) + "\n")
    (FOLDER / "broken.json").write_text(json.dumps(refused, indent=1) + "\n")


if __name__ == "__main__":
    main()

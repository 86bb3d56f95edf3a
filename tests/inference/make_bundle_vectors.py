"""`python -m tests.inference.make_bundle_vectors` writes tests/vectors/bundle/: bundles as hex beside what they hold.

Built here by hand from the page (struct and json only), not by the code that they test; the broken ones are made from
a good one by a table.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "vectors" / "bundle"
MAGIC = b"\xffSRBUNDL"
CARD = b'{"kind":"text_encoder","width":3}'
Row = tuple[str, int, int]

GOOD: list[tuple[str, dict[str, bytes]]] = [
    ("a graph and its weights", {"graph": b"graph", "weights": bytes(range(100))}),
    ("a text encoder", {"graph": b"g" * 64, "weights": b"w" * 65, "tokenizer": b"{}", "card": CARD}),
    ("a text encoder with its weights inside", {"graph": b"g", "tokenizer": b"t" * 63, "card": CARD}),
]


def aligned(offset: int) -> int:
    return (offset + 63) // 64 * 64


def rows(members: dict[str, bytes], table_bytes: int) -> list[Row]:
    found, end = [], 16 + table_bytes
    for name, content in members.items():
        found.append((name, aligned(end), len(content)))
        end = found[-1][1] + len(content)
    return found


def table(members: dict[str, bytes]) -> list[Row]:
    """The offsets depend on the table's length; these bundles are small, so that two rounds settle it."""
    first = rows(members, 0)
    second = rows(members, len(packed(first)))
    assert rows(members, len(packed(second))) == second
    return second


def packed(entries: Any) -> bytes:
    return json.dumps(entries, separators=(",", ":")).encode()


def bundle(content: bytes, members: list[tuple[int, bytes]], *, length: int | None = None, version: int = 1) -> bytes:
    """Head, a table's bytes, and each member at its offset."""
    data = bytearray(MAGIC + struct.pack(">B3xL", version, len(content) if length is None else length) + content)
    for offset, member in members:
        data += bytes(max(0, offset - len(data))) + member
    return bytes(data)


def good(members: dict[str, bytes]) -> bytes:
    entries = table(members)
    return bundle(packed(entries), [(row[1], content) for row, content in zip(entries, members.values(), strict=True)])


def relaid(names: list[str]) -> bytes:
    """Members of one byte each under these names."""
    entries = [(name, 192 + 64 * place, 1) for place, name in enumerate(names)]
    content = packed(entries).ljust(176)
    return bundle(content, [(offset, b"x") for _, offset, _ in entries])


def with_rows(entries: Any) -> bytes:
    return bundle(packed(entries).ljust(176), [(192, b"x")])


def broken() -> list[tuple[str, bytes, str]]:
    """name, bytes, what the reader says."""
    whole = good(GOOD[0][1])
    graph = ["graph", 192, 1]
    return [
        ("version of tomorrow", bundle(packed([]), [], version=2), "version is 2"),
        ("a reserved byte", whole[:9] + b"\x01" + whole[10:], "version is 1"),
        ("cut within its head", whole[:12], "before its table"),
        ("cut within its table", whole[:30], "table has"),
        ("a table of nothing", bundle(b"", [], length=0), "table has 0"),
        ("a table that is too long", bundle(b"[".ljust(5000), []), "table has 5000"),
        ("a table longer than the bundle", bundle(b"[]", [], length=4096), "table has 4096"),
        ("no JSON", bundle(b"[[", []), "no list"),
        ("an object", bundle(b"{}", []), "no list"),
        ("no rows", bundle(b"[]", []), "no graph"),
        ("a row of two", with_rows([["graph", 192]]), "no name with two numbers"),
        ("a row of four", with_rows([[*graph, 0]]), "no name with two numbers"),
        ("an offset that is true", with_rows([["graph", True, 1]]), "no name with two numbers"),
        ("an offset with a point", with_rows([["graph", 192.0, 1]]), "no name with two numbers"),
        ("a name that is a number", with_rows([[1, 192, 1]]), "no name with two numbers"),
        ("an unknown name", relaid(["graph", "script"]), "unknown"),
        ("a name twice", relaid(["graph", "graph"]), "twice"),
        ("members in another order", relaid(["weights", "graph"]), "not in order"),
        ("no graph", relaid(["weights"]), "no graph"),
        ("a tokenizer alone", relaid(["graph", "tokenizer"]), "come together"),
        ("a card alone", relaid(["graph", "card"]), "come together"),
        ("an empty member", with_rows([["graph", 192, 0]]), "of 0 bytes"),
        ("a negative size", with_rows([["graph", 192, -1]]), "of -1 bytes"),
        ("a member over its bound", with_rows([["graph", 192, 2**31]]), "of 2147483648 bytes"),
        ("an offset further on", with_rows([["graph", 256, 1]]), "begins at 256"),
        ("an offset within the table", with_rows([["graph", 64, 1]]), "begins at 64"),
        ("an offset that is not aligned", with_rows([["graph", 193, 1]]), "begins at 193"),
        ("a member beyond the end", with_rows([["graph", 192, 2]]), "members end at 194"),
        ("bytes behind the last member", whole + b"x", "members end at"),
        ("the last byte missing", whole[:-1], "members end at"),
        ("something between members", whole.replace(b"graph" + bytes(1), b"graph\x01"), "not zero"),
        ("a card that is a list", good({"graph": b"g", "tokenizer": b"t", "card": b"[1]"}), "card"),
    ]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = [
        {"name": name, "members": {key: content.hex() for key, content in members.items()}, "hex": good(members).hex()}
        for name, members in GOOD
    ]
    refused = [{"name": name, "hex": data.hex(), "says": says} for name, data, says in broken()]
    (FOLDER / "good.json").write_text(json.dumps(made, indent=1) + "\n")
    (FOLDER / "broken.json").write_text(json.dumps(refused, indent=1) + "\n")


if __name__ == "__main__":
    main()

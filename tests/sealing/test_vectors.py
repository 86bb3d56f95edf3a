"""The vectors of docs/formats/artefact.md: good files, and broken ones made from them by a table."""

import hashlib
import json
from typing import Any

import pytest

from sealing import ArtefactCorrupt
from tests.sealing import independent
from tests.sealing.artefacts import ARTEFACT, KEY, TENANT, opened, reader_of
from tests.sealing.make_vectors import FOLDER, made, plaintext

GOOD = json.loads((FOLDER / "good.json").read_text())
BROKEN = json.loads((FOLDER / "broken.json").read_text())["artefacts"]

EMPTY = (
    "53545247524f4f4d01011400000000006d6f64656c000000000000000000000011111111222243338444555555555555"
    "aaaaaaaabbbb4ccc8dddeeeeeeeeeeeecabf67688159712dfca11c4eebdcbf2d42e2edd3ed12dc0747f6ebe7de737fa7"
    "28404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f70717273747576f78f9c223c272325"
    "8d1d2136768027d7"
)


def stored_of(entry: dict[str, Any]) -> bytes:
    if entry["file"]:
        return (FOLDER / entry["file"]).read_bytes()
    return made(entry["segment_log2"], entry["size_bytes"])


@pytest.fixture(params=GOOD["artefacts"], ids=lambda entry: f"s{entry['segment_log2']}-p{entry['size_bytes']}")
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_a_good_file_is_the_one_on_the_page(entry: dict[str, Any]) -> None:
    stored = stored_of(entry)
    assert len(stored) == entry["stored_bytes"]
    assert stored[64:72].hex() == entry["header_tag_begins"]
    assert hashlib.sha256(stored).hexdigest() == entry["sha256"]


def test_a_good_file_opens_to_its_plaintext(entry: dict[str, Any]) -> None:
    assert opened(stored_of(entry)) == plaintext(entry["size_bytes"])


def test_a_good_file_is_read_by_the_independent_reader(entry: dict[str, Any]) -> None:
    plain = independent.read(stored_of(entry), KEY, TENANT, ARTEFACT, "model")
    assert plain == plaintext(entry["size_bytes"])


def test_our_writer_makes_the_good_file_from_the_same_salt_and_prefix(entry: dict[str, Any]) -> None:
    assert made(entry["segment_log2"], entry["size_bytes"]) == stored_of(entry)


def test_the_empty_file_is_the_one_spelled_out_on_the_page() -> None:
    assert (FOLDER / "s20-p0.sealed").read_bytes().hex() == EMPTY


def test_the_vectors_use_the_key_and_identity_of_the_page() -> None:
    assert (GOOD["data_key"], GOOD["tenant"], GOOD["artefact"]) == (KEY.hex(), str(TENANT), str(ARTEFACT))


def broken_file(entry: dict[str, Any]) -> bytes:
    content = bytearray((FOLDER / entry["file"]).read_bytes())
    for action, *given in entry["edits"]:
        _EDITS[action](content, *given)
    return bytes(content)


def _xor(content: bytearray, offset: int, with_hex: str) -> None:
    for place, byte in enumerate(bytes.fromhex(with_hex), offset):
        content[place] ^= byte


def _swap(content: bytearray, begin: int, end: int, other_begin: int, other_end: int) -> None:
    content[begin:other_end] = content[other_begin:other_end] + content[end:other_begin] + content[begin:end]


def _cut(content: bytearray, begin: int, end: int) -> None:
    del content[begin:end]


def _repeat(content: bytearray, begin: int, end: int) -> None:
    content[end:end] = content[begin:end]


_EDITS = {
    "xor": _xor,
    "swap": _swap,
    "cut": _cut,
    "repeat": _repeat,
    "append": lambda content, tail: content.extend(bytes.fromhex(tail)),
    "append_from": lambda content, name, begin, end: content.extend((FOLDER / name).read_bytes()[begin:end]),
}


@pytest.mark.parametrize("entry", BROKEN, ids=lambda entry: entry["name"])
def test_a_broken_file_is_refused_and_its_segment_named(entry: dict[str, Any]) -> None:
    with pytest.raises(ArtefactCorrupt) as refusal:
        opened(broken_file(entry))
    assert refusal.value.segment == entry["segment"]
    assert refusal.value.artefact == ARTEFACT


LENGTHENED = [entry for entry in BROKEN if entry["edits"][0][0] in ("cut", "append", "repeat", "append_from")]


@pytest.mark.parametrize("entry", LENGTHENED, ids=lambda entry: entry["name"])
def test_a_file_of_another_length_than_the_databases_is_refused_at_once(entry: dict[str, Any]) -> None:
    expected = len((FOLDER / entry["file"]).read_bytes())
    with pytest.raises(ArtefactCorrupt) as refusal, reader_of(broken_file(entry), stored_bytes=expected):
        pass
    assert refusal.value.segment is None

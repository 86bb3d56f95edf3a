"""A Hugging Face folder in a zip: its documents, and its weights read in order without unpacking them anywhere.

The archive's own rules are training.data.archive's (names, links, methods, ratios). Files that are not asked for are
never opened, pickles least of all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO, Any
from zipfile import ZipInfo

from training.data.archive import Archive, shown
from training.errors import DataRefused, ImportRefused
from training.language.tensor_types import BF16, F16, F32, TensorType
from training.safetensors import Stored, read_table

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
MOST_BYTES = 4 * 2**20  # of a document, but for
MOST_BYTES_OF = {INDEX: 16 * 2**20, TOKENIZER: 40 * 2**20}  # Gemma's has 33 million
TYPES: Mapping[str, TensorType] = MappingProxyType({"F32": F32, "F16": F16, "BF16": BF16})
_PASSED_OVER = 2**20
_WHOLE = "upload the zip of the whole folder: config.json, tokenizer.json and the safetensors"
Json = dict[str, Any]


class Folder:
    """The files beside config.json. One thread uses it."""

    def __init__(self, file: io.RawIOBase | io.BytesIO) -> None:
        with _refusing():
            self._archive = Archive(file)
        self._entries = _beside(CONFIG, self._archive.entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def document(self, name: str, *, optional: bool = False) -> Json:
        """A JSON object; empty where it may be missing and is."""
        if optional and name not in self._entries:
            return {}
        try:
            found = json.loads(self.text(name))
            json.dumps(found, ensure_ascii=False).encode()  # half a letter, \\ud800, is JSON and no text
        except (ValueError, RecursionError):
            raise ImportRefused(
                f"{name} is no JSON", "upload it as it was published", code="document_invalid"
            ) from None
        if not isinstance(found, dict):
            raise ImportRefused(f"{name} is no JSON object", "upload it as it was published", code="document_invalid")
        return found

    def text(self, name: str) -> str:
        if name not in self._entries:
            raise ImportRefused(f"{name} is missing", _WHOLE, code="file_missing")
        with _refusing():
            data = self._archive.read(self._entries[name], MOST_BYTES_OF.get(name, MOST_BYTES))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise ImportRefused(
                f"{name} is not UTF-8", "upload it as it was published", code="document_invalid"
            ) from None

    def weights(self) -> Weights:
        """The tables of all its safetensors."""
        names = self._weight_files()
        tables: dict[str, tuple[Stored, ...]] = {}
        for name in names:
            with self.open(name) as stream:
                tables[name] = read_table(stream, self._entries[name].file_size, name)
        self._check_index(tables)
        for one in (one for stored in tables.values() for one in stored):
            type_of(one)
        return Weights(self, tables)

    def _weight_files(self) -> list[str]:
        found = sorted(name for name in self._entries if name.endswith(".safetensors"))
        if INDEX in self._entries:
            named = sorted(set(map(str, self._index().values())))
            for name in named:
                if name not in found:
                    raise ImportRefused(f"{INDEX} names {shown(name)}, which is missing", _WHOLE, code="file_missing")
            return named
        if len(found) != 1:
            raise ImportRefused(
                f"there are {len(found)} safetensors and no {INDEX}",
                f"{_WHOLE}; pickles (.bin, .pt) are never opened",
                code="file_missing",
            )
        return found

    def _index(self) -> Json:
        found = self.document(INDEX).get("weight_map")
        if not isinstance(found, dict) or not found:
            raise ImportRefused(f"{INDEX} has no weight_map", _WHOLE, code="document_invalid")
        return found

    def _check_index(self, tables: Mapping[str, tuple[Stored, ...]]) -> None:
        where: dict[str, str] = {}
        for name, slices in tables.items():
            for one in slices:
                if one.name in where:
                    raise ImportRefused(
                        f"tensor {shown(one.name)} is in {shown(where[one.name])} and in {shown(name)}",
                        "save the model again",
                        code="safetensors_twice",
                    )
                where[one.name] = name
        if INDEX in self._entries and (apart := self._index().items() ^ where.items()):
            name = min(str(pair[0]) for pair in apart)
            raise ImportRefused(
                f"{INDEX} and the files disagree on tensor {shown(name)}",
                "save the model again",
                code="document_invalid",
            )

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with _refusing(), self._archive.open(self._entries[name]) as stream:
            yield stream


class Weights:
    """Tensors in the order in which they lie in the files."""

    def __init__(self, folder: Folder, tables: Mapping[str, tuple[Stored, ...]]) -> None:
        self._folder = folder
        self._tables = tables
        self.slices = tuple(one for slices in tables.values() for one in slices)

    def pieces(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """Every tensor that `sizes` names, once and in order, in pieces of so many bytes; each file to its checksum."""
        for file, slices in self._tables.items():
            with self._folder.open(file) as stream:
                place = 0
                for one in slices:
                    for _ in _cut(stream, one.begin - place, _PASSED_OVER, file):
                        pass
                    for piece in _cut(stream, one.size_bytes, sizes.get(one.name, _PASSED_OVER), file):
                        if one.name in sizes:
                            yield one.name, piece
                    place = one.begin + one.size_bytes
                while stream.read(_PASSED_OVER):
                    pass


def type_of(one: Stored) -> TensorType:
    if (found := TYPES.get(one.dtype)) is None:
        raise ImportRefused(
            f"tensor {shown(one.name)} is stored as {one.dtype}",
            f"{', '.join(TYPES)} are taken in; quantised weights are not",
            code="safetensors_type",
        )
    return found


def _cut(stream: IO[bytes], size_bytes: int, piece_bytes: int, file: str) -> Iterator[bytes]:
    while size_bytes:
        wanted = min(size_bytes, piece_bytes)
        piece = bytearray()
        while len(piece) < wanted and (more := stream.read(wanted - len(piece))):
            piece += more
        if len(piece) < wanted:
            raise ImportRefused(f"{shown(file)} ends early", "make the archive again", code="zip_entry_damaged")
        size_bytes -= wanted
        yield bytes(piece)


def _beside(name: str, entries: list[ZipInfo]) -> dict[str, ZipInfo]:
    """The entries of the one folder that holds `name`, by their names in it."""
    holding = [entry.filename for entry in entries if entry.filename.rpartition("/")[2] == name]
    if not holding:
        raise ImportRefused(f"{name} is missing", _WHOLE, code="file_missing")
    prefix = min(holding, key=lambda path: (path.count("/"), path))[: -len(name)]
    return {
        entry.filename[len(prefix) :]: entry
        for entry in entries
        if entry.filename.startswith(prefix) and "/" not in entry.filename[len(prefix) :]
    }


@contextmanager
def _refusing() -> Iterator[None]:
    """The archive refuses data sets; here it is a model."""
    try:
        yield
    except DataRefused as problem:
        raise ImportRefused(problem.message, problem.hint, code=problem.code) from None

"""`onnx-zip`: a graph and the files that its weights lie in, in one zip; for models over 2 GiB.

Every weight must lie in a file of the zip, at a place inside of it. The files are read in a stream, each once, straight
into the memory that the model is then tried and sealed from: nothing is unpacked, the weights are there once. Tensors
of less than a KiB go back into the graph, where the engine looks at shapes and axes. What a zip may be is decided in
training/data/archive.py.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import IO

from onnx import TensorProto

from training.data.archive import Archive, shown
from training.data.source import Source
from training.errors import ImportRefused
from training.importing.adopt import adopt
from training.importing.bundle import Imported, Parts
from training.importing.structure import MOST_BYTES, check, parameters, weights_sha256
from training.importing.weights import Weights, bytes_of, is_outside, point

MOST_TENSORS = 100_000
_INLINE_BYTES = 1024
_CHUNK_BYTES = 2**20
_KEYS = frozenset({"location", "offset", "length", "checksum"})
_SAVE = "save it by onnx.save(model, path, save_as_external_data=True) and zip the folder"


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Bytes of one file of the zip."""

    file: str
    offset: int
    length: int


def take_in(file: Source, *, task: str, classes: Sequence[str] | None, threads: int) -> Imported:
    """The model of the zip; ImportRefused or DataRefused where it cannot be served."""
    archive = Archive(file)
    entry = _graph_of(archive)
    model = check(archive.read(entry, MOST_BYTES), with_files=True)
    files = {other.filename: other for other in archive.entries if other is not entry}
    outside = [tensor for tensor in model.graph.initializer if is_outside(tensor)]
    if len(outside) > MOST_TENSORS:
        raise _refused(f"{len(outside)} weights lie outside the graph", f"{MOST_TENSORS} are the most")
    folder = posixpath.dirname(entry.filename)
    weights = _gathered(archive, files, [(tensor, _stretch(tensor, folder, files)) for tensor in outside])
    served, signature = adopt(model, task=task, classes=classes, threads=threads, weights=weights)
    return Imported(
        parts=Parts(graph=served, weights=None if weights is None else weights.view),
        signature=signature,
        parameters=parameters(model),
        weights_sha256=weights_sha256(model, weights),
    )


def _graph_of(archive: Archive) -> zipfile.ZipInfo:
    found = [entry for entry in archive.entries if entry.filename.lower().endswith(".onnx")]
    if len(found) != 1:
        named = ", ".join(shown(entry.filename) for entry in found[:3]) or "none"
        raise ImportRefused(
            f"the zip holds {len(found)} graphs, not one: {named}",
            "put one .onnx file into it and the files that its weights lie in",
            code="onnx_zip_graph",
        )
    return found[0]


def _stretch(tensor: TensorProto, folder: str, files: Mapping[str, zipfile.ZipInfo]) -> Stretch:
    """Where the tensor's bytes are, checked against its shape and the file's size."""
    name = repr(tensor.name[:80])
    keys = [entry.key for entry in tensor.external_data]
    fields = {entry.key: entry.value for entry in tensor.external_data}
    plain = (
        len(keys) == len(fields) and _KEYS.issuperset(fields) and all(isinstance(one, str) for one in fields.values())
    )
    if not plain or tensor.data_location != TensorProto.EXTERNAL:
        raise _refused(f"the weights {name} do not say plainly where they lie", _SAVE)
    if tensor.HasField("raw_data") or tensor.HasField("segment"):
        raise _refused(f"the weights {name} lie outside the graph and inside it too", _SAVE)
    needed = bytes_of(tensor)
    if needed is None:
        raise _refused(f"the weights {name} are of a type or shape that cannot lie outside the graph", _SAVE)
    offset, length = _number(fields.get("offset", "0")), _number(fields.get("length", str(needed)))
    if offset is None or length != needed:
        raise _refused(f"the weights {name} need {needed} bytes and are said to have {length} at {offset}", _SAVE)
    entry = _file(fields.get("location", ""), folder, files)
    if entry is None:
        raise _refused(f"the weights {name} lie outside the zip", _SAVE)
    if offset + length > entry.file_size:
        raise _refused(
            f"the weights {name} end at {offset + length}, their file {shown(entry.filename)} at {entry.file_size}",
            _SAVE,
        )
    return Stretch(entry.filename, offset, length)


def _file(location: str, folder: str, files: Mapping[str, zipfile.ZipInfo]) -> zipfile.ZipInfo | None:
    """A location is a path from the graph's folder; one that leaves it by any means is none."""
    if not location or location.startswith("/") or ".." in location.split("/"):
        return None
    return files.get(posixpath.normpath(posixpath.join(folder, location)))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def _gathered(
    archive: Archive, files: Mapping[str, zipfile.ZipInfo], outside: Sequence[tuple[TensorProto, Stretch]]
) -> Weights | None:
    """Reads each file that is named once, from its beginning to its end; the tensors point at what was read."""
    stretches = sorted({stretch for _, stretch in outside})
    _check_apart(stretches)
    large = [stretch for stretch in stretches if stretch.length >= _INLINE_BYTES]
    weights = Weights([stretch.length for stretch in large]) if large else None
    places = dict(zip(large, weights.places, strict=True)) if weights is not None else {}
    small: dict[Stretch, bytes] = {}
    for name, group in groupby(stretches, lambda stretch: stretch.file):
        with archive.open(files[name]) as stream:
            for stretch in _reached(stream, group):
                if weights is not None and stretch in places:
                    _fill(stream, weights.at(places[stretch]))
                else:
                    content = bytearray(stretch.length)
                    _fill(stream, memoryview(content))
                    small[stretch] = bytes(content)
    for tensor, stretch in outside:
        if stretch in places:
            point(tensor, places[stretch])
        else:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = small[stretch]
    return weights


def _check_apart(stretches: Sequence[Stretch]) -> None:
    """The same bytes for two tensors are honest; bytes shared in part would let a small file fill a large memory."""
    for one, other in pairwise(stretches):
        if one.file == other.file and other.offset < one.offset + one.length:
            raise _refused(f"weights overlap in {shown(one.file)} at {other.offset}", _SAVE)


def _reached(stream: IO[bytes], stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Each stretch when the stream stands at its beginning; at last the stream is read out, which checks its CRC."""
    for stretch in stretches:
        _skip(stream, stretch.offset - stream.tell())
        yield stretch
    while stream.read(_CHUNK_BYTES):
        pass


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        count -= len(_some(stream, count))


def _fill(stream: IO[bytes], target: memoryview) -> None:
    done = 0
    while done < len(target):
        piece = _some(stream, len(target) - done)
        target[done : done + len(piece)] = piece
        done += len(piece)


def _some(stream: IO[bytes], most: int) -> bytes:
    piece = stream.read(min(most, _CHUNK_BYTES))
    if not piece:  # the sizes were checked: the zip says another one than it holds
        raise _refused("a file of the zip ends early", "make the archive again and upload it whole")
    return piece


def _refused(problem: str, hint: str) -> ImportRefused:
    return ImportRefused(problem, hint, code="onnx_external_data")

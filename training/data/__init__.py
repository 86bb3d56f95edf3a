"""Data sets as arrays, and the door to them: `load` reads a sealed data set into memory, never to a file.

Formats: csv, npz, zip of images by class folder. Every defect of the file is a `DataRefused` with a code of its own;
what the spec asks and the data cannot give is `DatasetContradictsSpec`. It knows no network and no loop. Conversations
are no arrays: chat_jsonl.py reads them by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sealing import SealReader
from training.data import csv, images, npz
from training.data.profile import profile
from training.data.rows import Array, Column, Data, Indices, Raw, column_of
from training.data.source import Source
from training.data.split import split
from training.data.target import interpret
from training.errors import DataRefused, DatasetContradictsSpec

__all__ = ["Array", "Column", "Data", "Indices", "load", "parse", "profile", "split"]

READERS: Final[dict[str, Callable[[Source, str], Raw]]] = {"csv": csv.read, "npz": npz.read, "images": images.read}


def load(reader: SealReader, about: Mapping[str, Any]) -> Data:
    """The whole data set. `about` has format, modality, target and, where it is known, the task."""
    try:
        return parse(reader.file(), about)
    except DataRefused as problem:
        if about.get("task") is None:
            raise
        # The file passed its check: what is wrong now is what the spec makes of it.
        raise DatasetContradictsSpec(problem.message, problem.hint) from None


def parse(file: Source, about: Mapping[str, Any]) -> Data:
    """The same over any seekable file of bytes: the bytes decide between a `Data` and a coded refusal."""
    target_name = str(about.get("target") or "label")
    read = READERS.get(str(about.get("format")))
    if read is None:
        raise DataRefused("the format is not known", f"one of {', '.join(READERS)}", code="format_unknown")
    raw = read(file, target_name)
    wanted = about.get("modality") or "auto"
    if wanted not in ("auto", raw.modality):
        raise DataRefused(
            f"the data set is declared as {wanted} and holds {raw.modality} data",
            f"upload it with modality={raw.modality} or modality=auto",
            code="modality_mismatch",
        )
    target, classes = interpret(target_name, raw.target, about.get("task"))
    inputs = tuple(column_of(name, array) for name, array in raw.inputs.items())
    last = Column(target_name, "number" if classes is None else "category")
    return Data(raw.modality, raw.inputs, target, classes, (*inputs, last))

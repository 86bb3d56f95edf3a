"""Data sets as the tests need them: small files in memory, honest and hostile. Knows formats, none of our readers."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.data import Data, parse
from training.errors import DataRefused


def npz(*, compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def archive(entries: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in entries.items():
            made.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def picture(
    size: tuple[int, int] = (8, 8), *, mode: str = "RGB", colour: Any = 120, format: str = "PNG", **options: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, format, **options)
    return buffer.getvalue()


def npy(descr: str, shape: str, payload: bytes = b"", *, fortran: str = "False", version: int = 1) -> bytes:
    """A member whose header says whatever one likes."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    length = struct.pack("<H" if version == 1 else "<L", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + payload


def read(content: bytes, format: str, target: str = "label", **about: Any) -> Data:
    return parse(io.BytesIO(content), {"format": format, "target": target, **about})


def refusal(content: bytes, format: str, target: str = "label", **about: Any) -> DataRefused:
    """The refusal that reading ends in."""
    with pytest.raises(DataRefused) as caught:
        read(content, format, target, **about)
    assert caught.value.message
    assert caught.value.hint
    return caught.value

"""A zip of pictures in one folder a class: `cat/1.png`, or `pets/cat/1.png` under one common folder.

PNG, JPEG and BMP of 8 bits a channel. One size for all: the most common one (ties: the smaller), scaled down so that no
side is longer than 224. One channel where all pictures are grey, else three. Rows come in the order of the names.
Serving decodes a picture in the same way: `convert`, then Pillow's bilinear `resize`.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.data.archive import Archive, shown
from training.data.limits import LIMITS
from training.data.rows import Raw
from training.data.source import Source
from training.errors import DataRefused

FORMATS = ("PNG", "JPEG", "BMP")
_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class _Picture:
    entry: zipfile.ZipInfo
    label: str
    size: tuple[int, int]  # height, width
    is_grey: bool


def read(file: Source, target: str) -> Raw:
    archive = Archive(file)
    pictures = [_look(archive, entry, label) for entry, label in _by_class(archive.entries)]
    height, width = common_size([picture.size for picture in pictures])
    mode = "L" if all(picture.is_grey for picture in pictures) else "RGB"
    stack = np.empty((len(pictures), 1 if mode == "L" else 3, height, width), dtype=np.uint8)
    for row, picture in zip(stack, pictures, strict=True):
        row[...] = _decode(archive, picture, mode, (width, height))
    return Raw("image", {"image": stack}, np.array([picture.label for picture in pictures], dtype=object))


def common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The height and width that all pictures are brought to."""
    counts = Counter(sizes)
    height, width = min(counts, key=lambda size: (-counts[size], size[0] * size[1], size))
    scale = min(1.0, LIMITS.image_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _by_class(entries: list[zipfile.ZipInfo]) -> list[tuple[zipfile.ZipInfo, str]]:
    paths = [(entry, entry.filename.split("/")) for entry in entries if not _is_litter(entry.filename)]
    if not paths:
        raise DataRefused("there is no picture", "put pictures into one folder a class", code="no_rows")
    tops = {path[0] for _, path in paths}
    if len(tops) == 1 and all(len(path) == 3 for _, path in paths):  # one folder around the classes
        paths = [(entry, path[1:]) for entry, path in paths]
    for entry, path in paths:
        if len(path) == 1:
            raise _refused("image_without_class", entry, "is in no folder", "put it into its class's folder")
        if len(path) > 2:
            raise _refused("zip_entry_nested", entry, "lies too deep", "use one level of folders, one a class")
        if not path[0].strip() or len(path[0]) > LIMITS.name_characters:
            raise _refused("class_name", entry, "has a folder that cannot name a class", "rename the folder")
    return [(entry, path[0]) for entry, path in paths]


def _is_litter(name: str) -> bool:
    """What desktop systems add to archives by themselves."""
    path = name.split("/")
    return path[0] == "__MACOSX" or path[-1] in _LITTER


def _refused(code: str, entry: zipfile.ZipInfo, problem: str, hint: str) -> DataRefused:
    return DataRefused(f"entry {shown(entry.filename)} {problem}", hint, code=code)


def _look(archive: Archive, entry: zipfile.ZipInfo, label: str) -> _Picture:
    """Size and kind from the picture's header; nothing is decoded."""
    with _opened(archive, entry) as picture:
        width, height, mode = picture.width, picture.height, picture.mode
    if width * height > LIMITS.image_pixels:
        raise _refused(
            "image_too_large", entry, f"has {width}×{height} pixels", f"{LIMITS.image_pixels} pixels are the most"
        )
    if mode not in _GREY | _COLOUR:
        raise _refused("image_depth", entry, "has more than 8 bits a channel", "save it with 8 bits a channel")
    return _Picture(entry, label, (height, width), mode in _GREY)


def _opened(archive: Archive, entry: zipfile.ZipInfo) -> Image.Image:
    encoded = archive.read(entry, LIMITS.image_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _refused("image_too_large", entry, "has too many pixels", f"{LIMITS.image_pixels} are the most") from None
    except MemoryError:
        raise
    except Exception:  # the decoders raise whatever they trip over; the bytes are in memory, so it is the picture
        raise _unreadable(entry) from None


def _decode(
    archive: Archive, picture: _Picture, mode: str, size: tuple[int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with _opened(archive, picture.entry) as encoded:
        try:
            plain = encoded.convert(mode)
        except MemoryError:
            raise
        except Exception:  # as above
            raise _unreadable(picture.entry) from None
    if plain.size != size:
        plain = plain.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(plain, dtype=np.uint8)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _unreadable(entry: zipfile.ZipInfo) -> DataRefused:
    return _refused("image_unreadable", entry, "is no readable picture", f"put {', '.join(FORMATS)} files only")

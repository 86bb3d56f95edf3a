"""How much a data set may ask of the process that reads it: one table, so that no parser has a number of its own.

Memory itself is bounded by the sandbox; these bounds keep a small file from asking for much of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    rows: int = 20_000_000
    columns: int = 65_536
    classes: int = 10_000
    name_characters: int = 256
    line_bytes: int = 8 * 2**20  # of one line of a CSV
    entries: int = 500_000  # of a zip
    directory_bytes: int = 256 * 2**20  # the zip's own list of them, which is read at once
    inflation: int = 200  # plaintext bytes for one compressed byte
    inflation_free_bytes: int = 2**20  # what may be inflated more: small files of one colour are honest
    image_bytes: int = 64 * 2**20  # one encoded picture
    image_pixels: int = 25_000_000
    image_side: int = 224  # pictures are stored at most this wide and high
    array_side: int = 4096  # height and width of an array of pictures


LIMITS = Limits()

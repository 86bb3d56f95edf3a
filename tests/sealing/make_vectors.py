"""Writes the checked-in good files of tests/vectors/sealing/ anew: `python -m tests.sealing.make_vectors`.

The independent writer would choose its own salt, so these are made by our writer with a fixed one and are trusted only
because the page lists their SHA-256 and Tink opens them (test_vectors.py).
"""

from pathlib import Path
from unittest import mock

from sealing import SealWriter, cipher
from tests.sealing.artefacts import KEY, MODEL

FOLDER = Path(__file__).parent.parent / "vectors" / "sealing"
STREAM_HEADER = bytes([40, *range(0x40, 0x60), *range(0x70, 0x77)])


def plaintext(size: int) -> bytes:
    return bytes((7 * i * i + i) % 256 for i in range(size))


def made(log2: int, size: int) -> bytes:
    stored = bytearray()
    with mock.patch.object(cipher, "new_stream_header", return_value=STREAM_HEADER):
        writer = SealWriter(stored.extend, KEY, MODEL, segment_log2=log2)
    writer.write(plaintext(size))
    writer.close()
    return bytes(stored)


def file_of(log2: int, size: int) -> Path:
    return FOLDER / f"s{log2}-p{size}.sealed"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for log2, size in ((20, 0), (20, 3), (16, 65479), (16, 65480), (16, 65481), (16, 131000), (16, 131001)):
        file_of(log2, size).write_bytes(made(log2, size))

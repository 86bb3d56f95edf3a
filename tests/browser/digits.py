"""The handwritten digits as a newcomer has them: an NPZ of images to upload, and test digits as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from strongroom.operations.management.commands.demo import digits, test_digits

SHOWN = 10


def write(folder: Path) -> tuple[Path, list[tuple[Path, str]]]:
    """The data set, and digits that the model will not have seen: (file, what it is)."""
    images, labels = digits()
    data = folder / "Digits 2026.npz"
    buffer = io.BytesIO()
    np.savez(buffer, image=images, label=labels)
    data.write_bytes(buffer.getvalue())
    unseen = []
    for index in test_digits(labels)[:SHOWN].tolist():
        picture = folder / f"digit-{index}.png"
        Image.fromarray(images[index].transpose(1, 2, 0)).save(picture)
        unseen.append((picture, str(labels[index])))
    return data, unseen

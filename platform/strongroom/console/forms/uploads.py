"""What is said about a file before it is sent. It is only shown: the script makes the raw route's query of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strongroom.console.forms.document import DocumentForm, choice, text

FORMATS = [
    ("", "by the file's name"),
    ("csv", "CSV: a header line, a row a line"),
    ("npz", "NPZ: arrays image or features, and the target"),
    ("images", "ZIP of images, a folder a class"),
    ("chat-jsonl", "JSON Lines: a conversation a line"),
]
MODALITIES = [("auto", "auto"), ("tabular", "tabular"), ("image", "image")]


class DatasetForm(DocumentForm):
    """The fields of PUT /datasets/{name}/content."""

    name = text("Name", placeholder="digits", help="A new name, or an existing one for its next version.")
    format = choice("Format", FORMATS, required=False)
    target = text("Target column", initial="label", help="What shall be learned. In a zip of images: label.")
    modality = choice("Modality", MODALITIES)

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return dict(given)

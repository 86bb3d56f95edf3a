"""The folder of a model in a zip, at whatever depth: files are looked up in a table of names, never in a path.

Opens what it is asked for and nothing else, pickles least of all. What a zip may be: training/data/archive.py.
"""

from __future__ import annotations

import json
import posixpath
import zipfile
from typing import Any

from training.data.archive import Archive
from training.data.source import Source
from training.errors import ImportRefused

MOST_DOCUMENT_BYTES = 2**20
_HEADS = ("modules.json", "config.json")
Json = dict[str, Any]


class Folder:
    """Files are found in the folder of the transformer, which modules.json may name, and then in the one around it."""

    def __init__(self, file: Source) -> None:
        self.archive = Archive(file)
        self._entries = {entry.filename: entry for entry in self.archive.entries}
        heads = [name for name in self._entries if posixpath.basename(name) in _HEADS]
        self._root = posixpath.dirname(min(heads, key=lambda name: (name.count("/"), name), default=""))
        self._inner = self._root

    def enter(self, path: str) -> None:
        self._inner = posixpath.join(self._root, path)

    def entry(self, name: str) -> zipfile.ZipInfo:
        found = self._found(name)
        if found is None:
            raise ImportRefused(
                f"the zip holds no {name}",
                "zip the folder that save_pretrained writes: config.json, model.safetensors, tokenizer.json",
                code="file_missing",
            )
        return found

    def content(self, name: str, most_bytes: int) -> bytes:
        return self.archive.read(self.entry(name), most_bytes)

    def document(self, name: str) -> Json:
        """A JSON object that must be there."""
        self.entry(name)
        found = self.optional(name)
        if not isinstance(found, dict):
            raise invalid(name, "is no JSON object")
        return found

    def optional(self, name: str) -> Any:
        """What a JSON file says; None where there is none."""
        entry = self._found(name)
        if entry is None:
            return None
        try:
            return json.loads(self.archive.read(entry, MOST_DOCUMENT_BYTES))
        except (ValueError, RecursionError):
            raise invalid(name, "is no JSON") from None

    def _found(self, name: str) -> zipfile.ZipInfo | None:
        paths = (posixpath.normpath(posixpath.join(folder, name)) for folder in (self._inner, self._root))
        return next((self._entries[path] for path in paths if path in self._entries), None)


def invalid(name: str, problem: str) -> ImportRefused:
    return ImportRefused(f"{name} {problem}", "upload it as it was published", code="document_invalid")

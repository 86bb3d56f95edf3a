"""The two files that a batch writes: JSON Lines as OpenAI has them, sealed as they are written."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import orjson

from sealing import SealWriter
from strongroom import ids
from strongroom.files import services as files
from strongroom.jobs.asking import Answer
from strongroom.openai.answers import fresh
from strongroom.vault import services as vault


class Output:
    """A file of JSON Lines on its way: sealed as it is written, published once there is something in it."""

    def __init__(self, draft: vault.Draft) -> None:
        self._draft = draft
        self._writer: SealWriter | None = None
        self._sha256 = hashlib.sha256()
        self.lines = self.size_bytes = 0

    def add(self, line: dict[str, Any]) -> None:
        written = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if self._writer is None:
            self._writer = self._draft.writer()
        self._writer.write(written)
        self._sha256.update(written)
        self.lines += 1
        self.size_bytes += len(written)

    def publish(self, filename: str, expires_at: datetime | None) -> files.Sealed | None:
        if self._writer is None:
            return None
        self._writer.close()
        self._draft.publish()
        return files.Sealed(self._draft, filename, self.size_bytes, self._sha256.hexdigest(), expires_at)

    def discard(self) -> None:
        """What has no row by then."""
        self._draft.abort()


def line_of(
    custom_id: str | None, answer: Answer | None = None, error: tuple[str, str] | None = None
) -> dict[str, Any]:
    """A line of either file, as OpenAI writes it."""
    response = None
    if answer is not None:
        body = orjson.Fragment(answer.body)
        response = {"status_code": answer.status, "request_id": ids.fresh("req"), "body": body}
    said = None if error is None else {"code": error[0], "message": error[1]}
    return {"id": fresh("batch_req"), "custom_id": custom_id, "response": response, "error": said}

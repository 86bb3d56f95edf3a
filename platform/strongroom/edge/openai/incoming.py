"""The form of POST /v1/files as it arrives: its fields read, its file sealed, in whatever order they stand.

Where the file stands before its purpose, it is sealed as a batch's and, if it is not one, sealed anew at its end: the
kind is part of what is sealed. What is refused or breaks off leaves nothing.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from django.utils import timezone

from strongroom.access.services import Principal
from strongroom.edge import database, forms, http, upload
from strongroom.errors import FieldError, Invalid
from strongroom.files import services as files
from strongroom.files.services import Purpose
from strongroom.openai.problems import shown
from strongroom.rest import problem
from strongroom.tenants import scope
from strongroom.vault import services as vault

WRITES = {Purpose.BATCH: "predict", Purpose.FINE_TUNE: "datasets:write"}  # purpose → scope
REFUSED = ("assistants", "vision", "user_data", "evals")  # OpenAI's other purposes
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FIELDS = ("purpose", ANCHOR, SECONDS)
MOST_FIELD_BYTES = 256
MOST_BATCH_BYTES = 200_000_000  # OpenAI's
MOST_NAME = 255
EXPIRY_SECONDS = range(3600, 2_592_001)


class Incoming:
    """One form: its fields, and its file on the way into a draft. Belongs to one task."""

    def __init__(self, principal: Principal, room: upload.Room) -> None:
        self._principal, self._room = principal, room
        self._fields: dict[str, bytes] = {}
        self._name = ""  # of the part that is being read
        self._filename = ""
        self._size = 0
        self._kind: Purpose = Purpose.BATCH
        self._stream: upload.Stream | None = None

    async def take(self, found: forms.Part | bytes) -> None:
        """Invalid, TooLarge, LimitReached, Denied."""
        if isinstance(found, forms.Part):
            await self._begin(found)
        elif self._name == "file" and self._stream is not None:
            self._size += len(found)
            self._room.check(self._size)
            if "purpose" in self._fields:
                _check_size(self._kind, self._size)
            await self._stream.add(found)
        else:
            self._fields[self._name] += found
            if len(self._fields[self._name]) > MOST_FIELD_BYTES:
                raise _wrong(self._name, f"must have at most {MOST_FIELD_BYTES} bytes")

    async def finish(self) -> tuple[files.Sealed, Purpose]:
        """The file, sealed under the kind of its purpose and published."""
        purpose, expires_at = self._purpose(), self._expiry()
        if self._stream is None:
            raise _missing("file")
        if not self._size:
            raise _wrong("file", "is empty")
        _check_size(purpose, self._size)
        draft, sha256 = self._stream.draft, await self._stream.finish()
        self._stream = None
        if purpose is not self._kind:
            draft = await self._resealed(draft, purpose)
        expires_at = expires_at or files.usual_expiry(purpose)
        return files.Sealed(draft, self._filename, self._size, sha256, expires_at), purpose

    async def abort(self) -> None:
        if self._stream is not None:
            await self._stream.abort()

    async def _begin(self, part: forms.Part) -> None:
        if part.name not in ("file", *FIELDS):
            hint = problem.nearest(part.name[: problem.MAX_NAME], ("file", *FIELDS))
            raise _wrong(part.name[: problem.MAX_NAME], "is not a known parameter", "unknown_parameter", hint)
        if part.name in self._fields or (part.name == "file" and self._filename):
            raise _wrong(part.name, "is given more than once")
        self._name = part.name
        if part.name != "file":
            self._fields[part.name] = b""
            return
        self._filename = _filename(part.filename)
        if "purpose" in self._fields:
            self._kind = self._purpose()
        draft = await database.run(_draft, self._principal, self._kind)
        self._stream = upload.Stream(draft)

    def _purpose(self) -> Purpose:
        """Known, and allowed."""
        given = self._text("purpose")
        if given not in WRITES:
            known = " or ".join(f"'{purpose}'" for purpose in WRITES)
            why = ": files of that purpose have no use here" if given in REFUSED else ""
            raise _wrong("purpose", f"must be {known}, is {shown(given)}{why}")
        purpose = Purpose(given)
        self._principal.require(WRITES[purpose])
        return purpose

    def _expiry(self) -> datetime | None:
        if ANCHOR not in self._fields and SECONDS not in self._fields:
            return None
        anchor, text = self._text(ANCHOR), self._text(SECONDS)
        if anchor != "created_at":
            raise _wrong(ANCHOR, f"must be 'created_at', is {shown(anchor)}")
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) in EXPIRY_SECONDS):
            least, most = EXPIRY_SECONDS[0], EXPIRY_SECONDS[-1]
            raise _wrong(SECONDS, f"must be a number from {least} to {most}, is {shown(text)}")
        return timezone.now() + timedelta(seconds=int(text))

    def _text(self, name: str) -> str:
        if name not in self._fields:
            raise _missing(name)
        return self._fields[name].decode("utf-8", "replace")

    async def _resealed(self, draft: vault.Draft, purpose: Purpose) -> vault.Draft:
        """The file stood before the purpose, and the kind is part of what is sealed."""
        fresh = await database.run(upload.or_abort(draft, _draft), self._principal, purpose)
        work = upload.in_thread(vault.reseal, draft, fresh)
        try:
            await asyncio.shield(work)
        except BaseException:
            await asyncio.wait({work})
            await upload.in_thread(fresh.abort)
            raise
        return fresh


def _check_size(purpose: Purpose, size: int) -> None:
    if purpose is Purpose.BATCH and size > MOST_BATCH_BYTES:
        raise http.too_large(MOST_BATCH_BYTES)


def _filename(given: str | None) -> str:
    if given is None:
        raise _wrong("file", "must be a file, with a filename")
    if not 1 <= len(given) <= MOST_NAME:
        raise _wrong("file", f"must have a filename of 1 to {MOST_NAME} characters")
    if not given.isprintable() or "/" in given or "\\" in given or given in (".", ".."):
        raise _wrong("file", "must have a filename without a path and without control characters")
    return given


def _wrong(field: str, message: str, code: str = "invalid_value", hint: str | None = None) -> Invalid:
    return Invalid.all([FieldError(f"/{field}", code, message, hint)])


def _missing(field: str) -> Invalid:
    return _wrong(field, "is missing", "missing_required_parameter")


def _draft(principal: Principal, purpose: Purpose) -> vault.Draft:
    """Blocks."""
    with scope.tenant(principal.tenant_id, write=False):
        return files.begin(purpose)

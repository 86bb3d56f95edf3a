"""`Idempotency-Key`: the first answer to a request is kept sealed for a day, and a repeat gets it again.

Three short steps, so that it is right on both databases and under kill -9:
  begin      own transaction: the key is taken ("running"), or the kept answer is found
  finish     in the work's transaction: the answer is kept ("done"); work and answer are there together or neither is
  release    own transaction, after a failure: the key is free again, since nothing was done
What was taken and never finished (its process died) is free again after TAKEN_SECONDS. An answer of 400 or more is not
kept: nothing was done, so the same key may carry the corrected request.

For Django's views middleware.py does so; the edge calls by itself. Knows nothing of what the requests do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from strongroom import ids
from strongroom.errors import Conflict, Malformed
from strongroom.idempotency.models import Answer
from strongroom.tenants import scope

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
TAKEN_SECONDS = 90.0  # over the longest request (Prefer: wait=60)
KEPT_HEADERS = ("Location", "Content-Type", "Cache-Control")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Kept:
    """The first answer, as it went out."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Taken:
    """A key that this request has taken. Exactly one of `finish` and `release` ends it."""

    id: UUID
    tenant_id: UUID
    token: Any = field(repr=False)  # created_at of the row: who took the key over has another

    def finish(self, status: int, headers: Mapping[str, str], body: bytes | None) -> None:
        """Keeps the answer; call in the work's scope and transaction. `body=None`: it holds a secret.

        Conflict idempotency_running when another took the key over meanwhile: the work must be undone.
        """
        row = Answer.objects.select_for_update().filter(id=self.id, state="running", created_at=self.token).first()
        if row is None:
            raise _running()
        row.state, row.status = "done", status
        row.headers = {name: headers[name] for name in KEPT_HEADERS if name in headers}
        row.answer = None if body is None else {"body": body.decode()}
        row.save()

    def release(self) -> None:
        """Frees the key after a failure; call outside any scope."""
        with scope.tenant(self.tenant_id):
            Answer.objects.filter(id=self.id, state="running", created_at=self.token).delete()


def begin(tenant_id: UUID, principal_id: UUID, route: str, key: str, fingerprint: bytes) -> Kept | Taken:
    """Takes the key, or finds the first answer. Call outside any scope.

    `route` is the request's method-less path, `fingerprint` from `fingerprint()`. Malformed malformed_header, Conflict
    idempotency_conflict, idempotency_running, idempotency_secret.
    """
    if not _KEY.fullmatch(key):
        raise Malformed(
            f"{HEADER} must be 1 to 255 visible ASCII characters", code="malformed_header", hint="for example a UUID"
        )
    where = {
        "principal_id": principal_id,
        "route": route if len(route) <= 80 else hashlib.sha256(route.encode()).hexdigest(),
        "key_sha256": hashlib.sha256(key.encode()).digest(),
    }
    with scope.tenant(tenant_id):
        if (taken := _take(tenant_id, where, fingerprint)) is not None:
            return taken
        row = Answer.objects.filter(**where).first()
        return _kept(row, fingerprint)


def fingerprint(method: str, path_and_query: str, body: bytes) -> bytes:
    """What must be the same in a repeat."""
    return hashlib.sha256(f"{method} {path_and_query}\n".encode() + body).digest()


def forget_expired(limit: int = 1000) -> int:
    """Deletes what is older than a day; the scheduler calls it. Outside any scope."""
    with scope.operator("expired idempotency answers"):
        old = Answer.objects.filter(expires_at__lte=timezone.now()).values_list("id", flat=True)[:limit]
        return Answer.objects.filter(id__in=list(old)).delete()[0]


def _take(tenant_id: UUID, where: dict[str, Any], mark: bytes) -> Taken | None:
    now = timezone.now()
    ended = Answer.objects.filter(**where)
    ended.filter(expires_at__lte=now).delete()
    ended.filter(state="running", created_at__lte=now - timedelta(seconds=TAKEN_SECONDS)).delete()
    try:
        with transaction.atomic(using=scope.alias()):
            row = Answer.objects.create(id=ids.new(), body_sha256=mark, created_at=now, expires_at=now + KEPT, **where)
    except IntegrityError:
        return None
    return Taken(row.id, tenant_id, now)


def _kept(row: Answer | None, mark: bytes) -> Kept:
    if row is None or (row.state == "running" and bytes(row.body_sha256) == mark):
        raise _running()
    if bytes(row.body_sha256) != mark:
        raise Conflict(
            "this idempotency key was used with another body; send a new key with a new request",
            code="idempotency_conflict",
        )
    if row.answer is None:
        made = row.headers.get("Location", "the key")
        raise Conflict(
            f"{made} was made by the first request; its secret is not kept",
            code="idempotency_secret",
            hint=f"POST {made}/rotate {{}} for a new secret",
        )
    return Kept(row.status or 200, row.headers, row.answer["body"].encode())


def _running() -> Conflict:
    return Conflict(
        "the first request with this idempotency key is still running; try again", code="idempotency_running"
    )

"""Sessions in the database under the hash of their key: who reads the table, or a copy of it, has nobody's session.

Django's own store but for that; its synchronous half, which is what is used here. The cookie alone holds the key.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.sessions.backends import db
from django.core.exceptions import SuspiciousOperation
from django.utils import timezone

KEPT_CHARACTERS = 40  # the width of Django's column: 160 bits


def kept(key: str) -> str:
    """What the table holds in place of the key."""
    return hashlib.sha256(b"strongroom session 1" + key.encode()).hexdigest()[:KEPT_CHARACTERS]


class SessionStore(db.SessionStore):
    """`session_key` is the cookie's throughout; rows are found and written by its hash."""

    def _get_session_from_db(self) -> Any:
        try:
            return self.model.objects.get(session_key=kept(self.session_key or ""), expire_date__gt=timezone.now())
        except (self.model.DoesNotExist, SuspiciousOperation):
            self._session_key = None
            return None

    def exists(self, session_key: str) -> bool:
        return bool(self.model.objects.filter(session_key=kept(session_key)).exists())

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        row = super().create_model_instance(data)
        row.session_key = kept(row.session_key)
        return row

    def delete(self, session_key: str | None = None) -> None:
        if (key := session_key or self.session_key) is not None:
            self.model.objects.filter(session_key=kept(key)).delete()

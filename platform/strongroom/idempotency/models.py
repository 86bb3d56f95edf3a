"""First answers, kept sealed for a day, so that a repeated request gets them again."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom.tenants.models import Owned
from strongroom.vault.fields import SealedJSON


class Answer(Owned):
    """One Idempotency-Key of one principal on one route."""

    principal_id = models.UUIDField()
    route = models.CharField(max_length=80)
    key_sha256 = models.BinaryField(max_length=32)
    body_sha256 = models.BinaryField(max_length=32)
    state = models.CharField(max_length=7, choices=[("running", "running"), ("done", "done")], default="running")
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    answer = SealedJSON(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)

    class Meta(Owned.Meta):
        constraints = [
            models.UniqueConstraint(fields=["principal_id", "route", "key_sha256"], name="idempotency_answer_once")
        ]

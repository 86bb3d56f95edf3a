"""The audit log's rows: who did what to which object, from where, with what outcome. No content, ever."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom.tenants.models import Numbered


class Entry(Numbered):
    """Written inside the transaction of the action it records."""

    at = models.DateTimeField(default=timezone.now)
    actor_kind = models.CharField(max_length=8)
    actor_id = models.UUIDField(null=True)
    action = models.CharField(max_length=40)
    object_kind = models.CharField(max_length=20)
    object_id = models.UUIDField(null=True)
    from_address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=40, null=True)
    outcome = models.CharField(max_length=20)
    detail = models.JSONField(default=dict)

    class Meta(Numbered.Meta):
        indexes = [models.Index(fields=["tenant", "id"], name="audit_by_tenant")]
        verbose_name_plural = "entries"

"""What was used: counters per deployment, version, principal and minute; and which batches were counted already."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom.tenants.models import OwnedManager, Tenant


class Usage(models.Model):
    """Added to by INSERT … ON CONFLICT DO UPDATE only (metering/services.py)."""

    pk = models.CompositePrimaryKey("tenant_id", "deployment_id", "version_id", "principal_id", "minute")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+")
    deployment_id = models.UUIDField()
    version_id = models.UUIDField()
    principal_id = models.UUIDField()
    minute = models.DateTimeField()
    calls = models.BigIntegerField(default=0)
    items = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    compute_us = models.BigIntegerField(default=0)
    queue_us = models.BigIntegerField(default=0)

    objects = OwnedManager["Usage"]()

    class Meta:
        base_manager_name = "objects"
        default_manager_name = "objects"


class Batch(models.Model):
    """A flushed batch of a process: there means counted, so that a repeat changes nothing."""

    pk = models.CompositePrimaryKey("process_id", "number")
    process_id = models.UUIDField()
    number = models.BigIntegerField()
    at = models.DateTimeField(default=timezone.now)

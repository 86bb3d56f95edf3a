"""What was used: counters per deployment, version, principal and minute, and which batches were counted already. What
may be used: budgets in tokens, and the leases by which processes take from them.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from strongroom.metering.ledger import PERIODS
from strongroom.tenants.models import Owned, OwnedManager, Tenant


class Usage(models.Model):
    """Added to by INSERT … ON CONFLICT DO UPDATE only (metering/services.py). Tokens are those of language models."""

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
    tokens_in = models.BigIntegerField(default=0)
    tokens_cached = models.BigIntegerField(default=0)  # of tokens_in: found computed
    tokens_out = models.BigIntegerField(default=0)
    tokens_cancelled = models.BigIntegerField(default=0)  # of tokens_out: of answers that nobody waited for

    objects = OwnedManager["Usage"]()

    class Meta:
        base_manager_name = "objects"
        default_manager_name = "objects"
        indexes = [models.Index(fields=["tenant", "minute"], name="usage_by_minute")]


class Batch(models.Model):
    """A flushed batch of a process: there means counted, so that a repeat changes nothing."""

    pk = models.CompositePrimaryKey("process_id", "number")
    process_id = models.UUIDField()
    number = models.BigIntegerField()
    at = models.DateTimeField(default=timezone.now)


class Budget(Owned):
    """How many tokens a tenant, or one of its keys, may use in a window. Whoever changes it or a lease locks it."""

    principal_id = models.UUIDField(null=True, editable=False)  # null: all principals of the tenant together
    tokens = models.BigIntegerField()
    period = models.CharField(max_length=5, null=True, choices=[(period, period) for period in PERIODS])
    window_start = models.DateTimeField()
    spent = models.BigIntegerField(default=0)  # in this window, by leases that have ended

    class Meta(Owned.Meta):
        constraints = [
            models.UniqueConstraint(fields=["tenant"], condition=Q(principal_id=None), name="budget_of_tenant_once"),
            models.UniqueConstraint(
                fields=["tenant", "principal_id"], condition=~Q(principal_id=None), name="budget_of_key_once"
            ),
        ]


class Lease(Owned):
    """Tokens of a budget's present window that one process may spend without asking."""

    budget = models.ForeignKey(Budget, models.CASCADE, related_name="leases")
    granted = models.BigIntegerField()
    used = models.BigIntegerField()  # of granted, as last told
    serial = models.BigIntegerField()
    expires_at = models.DateTimeField()

    class Meta(Owned.Meta):
        pass

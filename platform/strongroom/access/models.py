"""API keys as they are kept (a hash, never the secret) and the numbers that tell processes to reload."""

from __future__ import annotations

from django.db import models
from django.db.models import F

from strongroom.tenants.models import Made, Owned


class ApiKey(Owned, Made):
    """A key of the native API. `prefix` is the look-up id; SHA-256 of the whole secret is what it is found by."""

    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=13, editable=False)
    secret_sha256 = models.BinaryField(max_length=32, unique=True, editable=False)
    scopes = models.JSONField(default=list)
    allowed_models = models.JSONField(default=list, blank=True)
    allowed_networks = models.JSONField(default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta(Owned.Meta):
        indexes = [models.Index(fields=["tenant", "created_at"], name="apikey_by_tenant")]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Generation(models.Model):
    """`principals`, `deployments`, `budgets`: bumped in a change's transaction, polled by every process each 0.3 s."""

    name = models.CharField(max_length=20, primary_key=True)
    value = models.BigIntegerField(default=0)

    class Meta:
        db_table = "access_generation"

    @classmethod
    def bump(cls, name: str) -> None:
        """Call inside the transaction of the change."""
        if not cls.objects.filter(name=name).update(value=F("value") + 1):
            cls.objects.get_or_create(name=name, defaults={"value": 1})  # an emptied table (tests)

"""Tenants' key pairs and the rows of sealed artefacts (docs/formats/artefact.md). No plaintext key is ever in a row."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom.tenants.models import Owned


class TenantKey(Owned):
    """One generation of a tenant's HPKE pair and field key, both wrapped by the tenant's root in the KMS."""

    class State(models.TextChoices):
        ACTIVE = "active"
        RETIRED = "retired"
        DESTROYED = "destroyed"

    generation = models.PositiveIntegerField()
    state = models.CharField(max_length=9, choices=State.choices, default=State.ACTIVE)
    suite = models.CharField(max_length=60)
    public_key = models.BinaryField()
    wrapped_private_key = models.BinaryField()
    wrapped_field_key = models.BinaryField()
    kms_key = models.CharField(max_length=80)
    kms_generation = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    destroyed_at = models.DateTimeField(null=True, editable=False)

    class Meta(Owned.Meta):
        constraints = [
            models.UniqueConstraint(fields=["tenant", "generation"], name="tenantkey_generation_once"),
            models.UniqueConstraint(fields=["tenant"], condition=models.Q(state="active"), name="tenantkey_one_active"),
        ]


class Artefact(Owned):
    """One sealed file: what it is, where it lies, and its data key sealed to the tenant's public key."""

    class State(models.TextChoices):
        SEALED = "sealed"
        DESTROYED = "destroyed"

    kind = models.CharField(max_length=16)
    state = models.CharField(max_length=9, choices=State.choices, default=State.SEALED)
    tenant_key = models.ForeignKey(TenantKey, models.PROTECT, related_name="+")
    wrapped_data_key = models.BinaryField()
    header_tag = models.BinaryField(max_length=32)
    row_tag = models.BinaryField(max_length=32)
    object_name = models.CharField(max_length=120, unique=True)
    size_bytes = models.BigIntegerField()
    stored_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    sealed_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, db_index=True)
    destroyed_at = models.DateTimeField(null=True)

"""What is served: deployments, the versions behind each, and where each is loaded."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom.registry.models import ModelVersion
from strongroom.tenants.models import Made, Owned


class Deployment(Owned, Made):
    """A name that callers predict with."""

    class State(models.TextChoices):
        LOADING = "loading"
        READY = "ready"
        FAILED = "failed"
        DRAINING = "draining"
        STOPPED = "stopped"

    name = models.SlugField(max_length=63)
    state = models.CharField(max_length=8, choices=State.choices, default=State.LOADING)
    device = models.CharField(max_length=8, default="cpu")
    max_batch = models.PositiveIntegerField(default=64)
    max_delay_ms = models.PositiveIntegerField(default=0)
    context_tokens = models.PositiveIntegerField(null=True)
    share = models.BooleanField(default=False)
    replicas_min = models.PositiveIntegerField(default=1)
    replicas_max = models.PositiveIntegerField(default=1)
    limits = models.JSONField(default=dict)
    output_policy = models.JSONField(default=dict)
    error_code = models.CharField(max_length=40, null=True)
    stopped_at = models.DateTimeField(null=True)

    class Meta(Owned.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"], condition=~models.Q(state="stopped"), name="deployment_name_once"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Traffic(Owned):
    """One model version's part of a deployment's requests."""

    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="traffic")
    version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="+")
    weight = models.PositiveSmallIntegerField(default=100)
    mode = models.CharField(max_length=6, choices=[("live", "live"), ("shadow", "shadow")], default="live")

    class Meta(Owned.Meta):
        constraints = [models.UniqueConstraint(fields=["deployment", "version"], name="traffic_once")]


class Replica(Owned):
    """A deployment loaded on a node."""

    class State(models.TextChoices):
        LOADING = "loading"
        READY = "ready"
        FAILED = "failed"

    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="replicas")
    node = models.CharField(max_length=80)
    state = models.CharField(max_length=7, choices=State.choices, default=State.LOADING)
    memory_bytes = models.BigIntegerField(null=True)
    beat_at = models.DateTimeField(default=timezone.now)

    class Meta(Owned.Meta):
        constraints = [models.UniqueConstraint(fields=["deployment", "node"], name="replica_once")]

"""Models and their versions: what was made, from what, how good it is. The weights are a sealed artefact."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom import ids
from strongroom.tenants.models import Owned
from strongroom.vault.fields import SealedJSON
from strongroom.vault.models import Artefact


class PublicModel(models.Model):
    """A version that its owner lets every tenant of this platform deploy: what anybody may know of it. The weights stay
    the owner's artefact. No tenant's row: whoever reads it sees nothing of the owner but this."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    owner_id = models.UUIDField(editable=False)
    owner = models.SlugField(max_length=63)
    model = models.SlugField(max_length=63)
    number = models.PositiveIntegerField()
    version_id = models.UUIDField(editable=False)
    task = models.CharField(max_length=20)
    format = models.CharField(max_length=16)
    size_bytes = models.BigIntegerField()
    parameters = models.BigIntegerField(null=True)
    interface = models.JSONField()
    card = models.JSONField(null=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    withdrawn_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "registry_public"
        constraints = [
            models.UniqueConstraint(
                fields=["version_id"], condition=models.Q(withdrawn_at__isnull=True), name="public_version_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.owner}/{self.model}@{self.number}"


class Model(Owned):
    """A name for a growing list of versions of one task."""

    name = models.SlugField(max_length=63)
    task = models.CharField(max_length=20)
    description = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta(Owned.Meta):
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="model_name_once")]

    def __str__(self) -> str:
        return self.name


class ModelVersion(Owned):
    """A trained or imported model. `rejected` is kept with its reasons and never deployed."""

    class State(models.TextChoices):
        READY = "ready"
        REJECTED = "rejected"
        DELETED = "deleted"

    class Stage(models.TextChoices):
        CANDIDATE = "candidate"
        PRODUCTION = "production"
        ARCHIVED = "archived"

    model = models.ForeignKey(Model, models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.READY)
    stage = models.CharField(max_length=10, choices=Stage.choices, default=Stage.CANDIDATE)
    format = models.CharField(max_length=16, default="onnx")
    artefact = models.ForeignKey(Artefact, models.PROTECT, null=True, related_name="+")
    size_bytes = models.BigIntegerField()
    base = models.ForeignKey("self", models.PROTECT, null=True, related_name="adapters")  # of a LoRA adapter
    public = models.ForeignKey(PublicModel, models.PROTECT, null=True, related_name="+")  # another tenant's, adopted
    parameters = models.BigIntegerField(null=True)
    metrics = models.JSONField(default=dict)
    evaluation = SealedJSON(null=True)
    signature = SealedJSON(null=True)  # what it takes and gives: inference/interface.py
    card = SealedJSON(null=True)  # what an imported model says of itself
    lineage = models.JSONField(default=dict)
    reasons = SealedJSON(null=True)
    job_id = models.UUIDField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta(Owned.Meta):
        db_table = "registry_version"
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="model_version_once")]

    def __str__(self) -> str:
        return f"{self.model.name}@{self.number}"


class ModelUpload(Owned):
    """A model's file on its way to an import job: the artefact waits 24 hours at most."""

    artefact = models.OneToOneField(Artefact, models.CASCADE, related_name="+")
    name = models.SlugField(max_length=63)
    format = models.CharField(max_length=16)

"""Data sets and their versions. The bytes are a sealed artefact; names of columns and classes are sealed in the row."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom.tenants.models import Made, Owned
from strongroom.vault.fields import SealedJSON
from strongroom.vault.models import Artefact


class Dataset(Owned):
    """A name for a growing list of versions."""

    name = models.SlugField(max_length=63)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)

    class Meta(Owned.Meta):
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="dataset_name_once")]

    def __str__(self) -> str:
        return self.name


class DatasetVersion(Owned, Made):
    """One upload: checking → ready or failed; deleted keeps its number and fingerprint for the lineage."""

    class State(models.TextChoices):
        CHECKING = "checking"
        READY = "ready"
        FAILED = "failed"
        DELETED = "deleted"

    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.CHECKING)
    format = models.CharField(max_length=16)
    modality = models.CharField(max_length=8, default="auto")
    target = models.CharField(max_length=128, default="label")
    artefact = models.ForeignKey(Artefact, models.PROTECT, null=True, related_name="+")
    size_bytes = models.BigIntegerField()
    rows = models.BigIntegerField(null=True)
    fingerprint = models.CharField(max_length=71)
    profile = SealedJSON(null=True)
    error_code = models.CharField(max_length=40, null=True)
    error = SealedJSON(null=True)
    check_job_id = models.UUIDField(null=True, editable=False)

    class Meta(Owned.Meta):
        db_table = "datasets_version"
        constraints = [models.UniqueConstraint(fields=["dataset", "number"], name="dataset_version_once")]

    def __str__(self) -> str:
        return f"{self.dataset.name}@{self.number}"

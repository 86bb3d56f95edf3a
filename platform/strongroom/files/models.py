"""Files, as `/v1/files` has them: a name and a purpose over bytes that another room keeps. The name is sealed."""

from __future__ import annotations

from django.db import models

from strongroom.datasets.models import DatasetVersion
from strongroom.tenants.models import Made, Owned
from strongroom.vault.fields import SealedJSON
from strongroom.vault.models import Artefact


class File(Owned, Made):
    """One file: an artefact of its own, or a data set's version where it is for fine-tuning.

    `deployment` names whose answers an output holds, for keys that are bound to some.
    """

    class Purpose(models.TextChoices):
        BATCH = "batch"
        FINE_TUNE = "fine-tune"
        BATCH_OUTPUT = "batch_output"

    purpose = models.CharField(max_length=12, choices=Purpose.choices)
    filename = SealedJSON()
    size_bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    artefact = models.ForeignKey(Artefact, models.PROTECT, null=True, related_name="+")
    dataset_version = models.ForeignKey(DatasetVersion, models.PROTECT, null=True, related_name="+")
    deployment = models.SlugField(max_length=63, null=True)
    expires_at = models.DateTimeField(null=True, db_index=True)

    class Meta(Owned.Meta):
        indexes = [models.Index(fields=["tenant", "id"], name="file_by_tenant")]

    def __str__(self) -> str:
        return str(self.filename)

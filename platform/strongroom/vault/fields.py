"""Columns that hold sealed JSON. (The sealing itself is in the keyring.)"""

from django.db import models


class SealedJSON(models.BinaryField):
    """JSON in memory, AES-GCM under the tenant's field key in the database."""

"""What the forms of a training and of a fine-tuning share: a box for any part of the job spec that no field stands for.

Knows no kind of job; the spec's rules are the service's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.db.models import QuerySet

from strongroom.console.forms.document import DocumentForm, long_text
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import services as jobs

CHOICES = 500  # versions to choose from: the newest; any other one by the advanced box


def advanced(example: str) -> Any:
    """The box."""
    label = "Advanced: any part of the job spec, as JSON laid over the fields"
    return long_text(label, rows=8, code=True, help=f"Such as {example}")


class SpecForm(DocumentForm):
    """A subclass has the field `advanced`, and lays what it holds over the document that it builds."""

    overflow = "advanced"

    def clean_advanced(self) -> dict[str, Any]:
        given = self.cleaned_data["advanced"].strip()
        if not given:
            return {}
        try:
            found = json.loads(given, parse_constant=_no_constant)
        except RecursionError:
            raise forms.ValidationError("is nested too deep") from None
        except ValueError as error:
            raise forms.ValidationError(f"is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise forms.ValidationError("must be a JSON object, such as {…}")
        return found

    def check(self, document: dict[str, Any]) -> None:
        jobs.validate(document)


def ready_versions() -> QuerySet[DatasetVersion]:
    """Data sets that a job may read, the newest first."""
    rows = datasets.versions().filter(state=DatasetVersion.State.READY).order_by("-created_at")
    return rows.defer("error")


def laid_over(document: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins, object by object. A model of another kind shares no field with the one below it: it replaces it."""
    found = dict(document)
    for key, value in over.items():
        below = found.get(key)
        merges = (
            isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("kind", below.get("kind")) == below.get("kind")
        )
        found[key] = laid_over(below, value) if merges and isinstance(below, dict) else value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")

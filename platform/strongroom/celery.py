"""The Celery application: wake-ups only (settings/defaults.py, CELERY). Tasks are found in the rooms' tasks.py."""

from __future__ import annotations

import os

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")

app = Celery("strongroom")
app.config_from_object(settings.CELERY)
app.autodiscover_tasks(["strongroom.jobs"])

"""Django's handle on this room."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "strongroom.jobs"
    label = "jobs"

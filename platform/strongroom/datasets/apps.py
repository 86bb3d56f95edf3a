"""Django's handle on this room."""

from django.apps import AppConfig


class DatasetsConfig(AppConfig):
    name = "strongroom.datasets"
    label = "datasets"

"""Django's handle on this room."""

from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "strongroom.operations"
    label = "operations"

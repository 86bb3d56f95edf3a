"""Django's handle on this room."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "strongroom.access"
    label = "access"

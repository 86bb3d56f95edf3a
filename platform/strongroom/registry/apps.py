"""Django's handle on this room."""

from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "strongroom.registry"
    label = "registry"

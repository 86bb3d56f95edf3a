"""Django's handle on this room."""

from django.apps import AppConfig


class VaultConfig(AppConfig):
    name = "strongroom.vault"
    label = "vault"

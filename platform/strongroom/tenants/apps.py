"""Django's handle on this room."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "strongroom.tenants"
    label = "tenants"

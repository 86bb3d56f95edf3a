"""Django's handle on this room."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "strongroom.tenants"
    label = "tenants"

    def ready(self) -> None:
        from strongroom.tenants import checks  # noqa: F401  # registers the system check

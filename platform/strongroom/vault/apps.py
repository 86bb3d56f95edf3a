"""Django's handle on this room: a new tenant gets its keys in the transaction that makes it."""

from django.apps import AppConfig


class VaultConfig(AppConfig):
    name = "strongroom.vault"
    label = "vault"

    def ready(self) -> None:
        from strongroom.tenants import services as tenants
        from strongroom.vault.services import create_tenant_keys

        tenants.on_created(create_tenant_keys)

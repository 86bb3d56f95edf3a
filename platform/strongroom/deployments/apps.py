"""Django's handle on this room; tells the registry which versions are served."""

from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    name = "strongroom.deployments"
    label = "deployments"

    def ready(self) -> None:
        from strongroom.deployments.services import uses
        from strongroom.registry.services import on_use

        on_use(uses)

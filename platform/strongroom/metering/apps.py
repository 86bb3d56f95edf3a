"""Django's handle on this room."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    name = "strongroom.metering"
    label = "metering"

    def ready(self) -> None:
        from strongroom.access import services as access
        from strongroom.metering import budgets

        access.on_rotate(budgets.move)

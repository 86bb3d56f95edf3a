"""Django's handle on this room."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    name = "strongroom.metering"
    label = "metering"

"""Django's handle on this room."""

from django.apps import AppConfig


class IdempotencyConfig(AppConfig):
    name = "strongroom.idempotency"
    label = "idempotency"

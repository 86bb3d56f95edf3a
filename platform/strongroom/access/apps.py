"""Django's handle on this room: whatever changes who may do what raises the generation, whoever saves it."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig

UNIMPORTANT = frozenset({"last_login", "password", "name", "display_name"})


class AccessConfig(AppConfig):
    name = "strongroom.access"
    label = "access"

    def ready(self) -> None:
        from django.db.models.signals import post_delete, post_save

        from strongroom.tenants.models import Member, Tenant, User

        for model in (Tenant, User, Member):
            post_save.connect(_changed, sender=model, dispatch_uid=f"generation.{model.__name__}")
            post_delete.connect(_changed, sender=model, dispatch_uid=f"generation.{model.__name__}.deleted")


def _changed(sender: type, created: bool = False, update_fields: Any = None, **signal: Any) -> None:
    """In the saver's transaction, where there is one. New rows and sign-ins change nothing that is remembered."""
    from strongroom.access.models import Generation

    if not created and not (update_fields and UNIMPORTANT.issuperset(update_fields)):
        Generation.bump("principals")

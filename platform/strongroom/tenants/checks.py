"""System check: a tenant's table keeps the scoped manager as default and as base, or Django's own look-ups leak."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, register

from strongroom.tenants.models import Owned, OwnedManager


@register
def owned_tables_are_scoped(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """For every model under Owned."""
    return [problem for model in apps.get_models() if issubclass(model, Owned) for problem in faults(model)]


def faults(model: type[Owned]) -> list[CheckMessage]:
    """What is wrong with one model's managers."""
    managers = {
        "objects": model.objects,
        "the default manager": model._default_manager,
        "the base manager": model._base_manager,
    }
    return [
        Error(
            f"{what} of {model.__name__} is not scoped to a tenant",
            hint="let its Meta inherit Owned.Meta and its managers OwnedManager",
            obj=model,
            id="tenants.E001",
        )
        for what, manager in managers.items()
        if not isinstance(manager, OwnedManager)
    ]

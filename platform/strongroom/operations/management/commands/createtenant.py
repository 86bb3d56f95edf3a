"""`manage.py createtenant NAME --owner EMAIL`: a tenant, its owner and a key with all scopes, as one JSON line."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from strongroom.access.services import create_for_owner
from strongroom.errors import StrongroomError
from strongroom.tenants import scope
from strongroom.tenants.services import NewTenant, create_tenant


class Command(BaseCommand):
    help = 'Make a tenant; prints {"tenant", "owner", "password" (null if the person had an account), "api_key"}.'

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="lower-case letters, digits and dashes")
        parser.add_argument("--owner", required=True, help="the owner's e-mail address")
        parser.add_argument("--display-name", default="", help="how people read it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made, secret = _make(options["name"], options["owner"], options["display_name"])
        except StrongroomError as error:
            raise CommandError(error.detail) from None
        line = {"tenant": made.tenant.name, "owner": made.owner.user.email, "password": made.password}
        self.stdout.write(json.dumps(line | {"api_key": secret}))


def _make(name: str, owner: str, display_name: str) -> tuple[NewTenant, str]:
    """Both or neither."""
    with transaction.atomic():
        made = create_tenant(name, owner, display_name)
        with scope.tenant(made.tenant.id):
            return made, create_for_owner(made.owner, "first")[1]

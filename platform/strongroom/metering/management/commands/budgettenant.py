"""`manage.py budgettenant NAME [TOKENS [PERIOD]]`: sets a tenant's budget of tokens; `none` removes it; prints it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from strongroom.errors import NotFound
from strongroom.metering import budgets
from strongroom.metering.ledger import PERIODS
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Tenant

SYSTEM = Actor("system")


class Command(BaseCommand):
    help = "Set how many tokens of language models a tenant may use a day, a month or in all; prints the budget."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the tenant")
        parser.add_argument("tokens", nargs="?", help="a whole number, or none")
        parser.add_argument("period", nargs="?", choices=PERIODS, help="of UTC; once and for all without it")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant_id = Tenant.objects.filter(name=options["name"]).values_list("id", flat=True).first()
        if tenant_id is None:
            raise CommandError(f"there is no tenant {options['name']!r}")
        found = self._changed(tenant_id, options["tokens"], options["period"])
        self.stdout.write(json.dumps({"tenant": options["name"], "budget": found}))

    def _changed(self, tenant_id: UUID, tokens: str | None, period: str | None) -> dict[str, Any] | None:
        with scope.tenant(tenant_id):
            try:
                if tokens == "none":
                    budgets.remove(SYSTEM, None)
                elif tokens is not None:
                    budgets.put(SYSTEM, None, tokens=_read(tokens), period=period)
                return budgets.document(budgets.find(None))
            except NotFound:
                return None


def _read(given: str) -> int:
    if given.isascii() and given.isdecimal() and len(given) <= 16 and int(given) <= budgets.MOST_TOKENS:
        return int(given)
    raise CommandError(f"TOKENS must be a whole number up to {budgets.MOST_TOKENS}, or none, is {given!r}")

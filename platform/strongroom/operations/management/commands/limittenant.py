"""`manage.py limittenant NAME [LIMIT=VALUE …]`: changes a tenant's limits, which hold at once; prints what they are."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from strongroom.errors import StrongroomError
from strongroom.tenants.services import DEFAULT_LIMITS, set_limits


class Command(BaseCommand):
    help = f"Change a tenant's limits ({', '.join(DEFAULT_LIMITS)}); prints all of them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the tenant")
        parser.add_argument("limits", nargs="*", metavar="LIMIT=VALUE", help="a whole number, none or default")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            now = set_limits(options["name"], dict(_read(given) for given in options["limits"]))
        except StrongroomError as error:
            raise CommandError(error.detail) from None
        self.stdout.write(json.dumps({"tenant": options["name"]} | now))


def _read(given: str) -> tuple[str, int | None]:
    limit, _, value = given.partition("=")
    if limit not in DEFAULT_LIMITS:
        raise CommandError(f"there is no limit {limit!r}; there are {', '.join(DEFAULT_LIMITS)}")
    if value == "default":
        return limit, DEFAULT_LIMITS[limit]
    if value == "none":
        return limit, None
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise CommandError(f"{limit} must be a whole number, none or default, is {value!r}")
    return limit, int(value)

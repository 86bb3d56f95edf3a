"""`manage.py createoperator EMAIL`: somebody who may open /operator/, as one JSON line."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from strongroom.errors import StrongroomError
from strongroom.tenants.services import create_operator


class Command(BaseCommand):
    help = 'Make an operator; prints {"email", "password" (null if the person had an account)}.'

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with transaction.atomic():
                user, password = create_operator(options["email"])
        except StrongroomError as error:
            raise CommandError(error.detail) from None
        self.stdout.write(json.dumps({"email": user.email, "password": password}))

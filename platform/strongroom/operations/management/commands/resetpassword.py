"""`manage.py resetpassword EMAIL`: a new password for an account, as one JSON line; its sessions end.

With it the operator vouches for whose account it is: one that a tenant made may be taken into other tenants after that.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from strongroom.tenants.models import User
from strongroom.tenants.services import reset_password


class Command(BaseCommand):
    help = 'Give an account a new password; prints {"email", "password"}.'

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")

    def handle(self, *args: Any, **options: Any) -> None:
        email = options["email"].strip().lower()
        if (user := User.objects.filter(email=email).first()) is None:
            raise CommandError(f"there is no account {email}")
        self.stdout.write(json.dumps({"email": user.email, "password": reset_password(user)}))

"""Django's migrate, as the owner role in production; afterwards the roles app and system get what they may do."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.commands import migrate
from django.db import connections


class Command(migrate.Command):
    help = "Bring the database to this version; in production with STRONGROOM_OWNER_DATABASE_URL."

    def handle(self, *args: Any, **options: Any) -> None:
        if "owner" in settings.DATABASES:
            options["database"] = "owner"
        super().handle(*args, **options)
        if "owner" in settings.DATABASES:
            self._grant({str(settings.DATABASES[a]["USER"]) for a in ("default", "system") if a in settings.DATABASES})

    def _grant(self, roles: set[str]) -> None:
        """Rows, never tables: neither role may change the schema."""
        connection = connections["owner"]
        with connection.cursor() as cursor:
            for role in roles - {settings.DATABASES["owner"]["USER"]}:
                name = connection.ops.quote_name(role)
                cursor.execute(f"GRANT USAGE ON SCHEMA public TO {name}")
                cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")
                cursor.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {name}")

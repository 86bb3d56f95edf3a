"""What web and worker ask before they start: whether the root keys are those of this database."""

from __future__ import annotations

import logging

from django.core.management.base import CommandError
from django.db import DatabaseError, OperationalError, connections

from strongroom.vault import services as vault

logger = logging.getLogger(__name__)


def verify() -> None:
    """CommandError with other root keys than the database's; one that is away is waited for while serving."""
    try:
        vault.verify_ring()
    except vault.WrongRing as error:
        raise CommandError(str(error)) from None
    except OperationalError as error:
        logger.warning("the root keys cannot be checked now: the database answers %s", type(error).__name__)
    except DatabaseError:
        raise CommandError("the database is not of this version; run 'manage.py migrate'") from None
    finally:
        connections.close_all()

#!/usr/bin/env python
"""The one entry: `manage.py up`, `migrate`, `createtenant` … hands over to Django.

Whatever a process of ours leaves behind is its user's alone, and it leaves no image of its memory.
"""

import os
import resource
import sys

from django.core.management import execute_from_command_line


def keep_to_oneself() -> None:
    """Files for nobody else; no core dump. The limit is 1, not 0: a dump that is piped away ignores 0."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


if __name__ == "__main__":
    keep_to_oneself()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")
    execute_from_command_line(sys.argv)

#!/usr/bin/env python
"""The one entry: `manage.py up`, `migrate`, `createtenant`, `bench` … hands over to Django."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")
    execute_from_command_line(sys.argv)

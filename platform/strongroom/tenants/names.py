"""The one rule for names that people give: tenants, data sets, models, deployments, jobs."""

from __future__ import annotations

import re

from strongroom.errors import Invalid

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def is_possible(name: str) -> bool:
    """Whether anything can have this name: what cannot is not there, and PostgreSQL takes no null character."""
    return NAME.fullmatch(name) is not None


def check(field: str, name: object) -> str:
    """The name, or Invalid: lower-case letters, digits and dashes, at most 63, a letter first."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Invalid.field(
            f"/{field}",
            "must be 1 to 63 lower-case letters, digits or dashes and begin with a letter",
            hint="for example 'digits'",
            code="name",
        )
    return name

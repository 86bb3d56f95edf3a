"""Writes the documents that come from the code into docs/: settings, errors, OpenAPI; `--check` compares them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def settings() -> str:
    from strongroom.settings.environment import PREFIX, Environment

    lines = ["# Settings", "", "Made by `make docs` from platform/strongroom/settings/environment.py.", ""]
    lines += ["| variable | default | what it is |", "|---|---|---|"]
    for field in fields(Environment):
        default = f"`{field.metadata['default']}`" if field.metadata["default"] else ""
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {field.metadata['about']} |")
    return "\n".join(lines) + "\n"


def errors() -> str:
    from strongroom.errors import TITLES

    lines = ["# Error codes", "", "Made by `make docs` from platform/strongroom/errors.py.", ""]
    lines += ["| status | code | title |", "|---|---|---|"]
    lines += [f"| {status} | `{code}` | {title} |" for code, (status, title) in TITLES.items()]
    return "\n".join(lines) + "\n"


def openapi() -> str:
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.renderers import OpenApiYamlRenderer
    from drf_spectacular.validation import validate_schema

    schema = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(schema)
    return OpenApiYamlRenderer().render(schema).decode()


DOCUMENTS: dict[str, Callable[[], str]] = {"settings.md": settings, "errors.md": errors, "openapi.yaml": openapi}


def main(check: bool) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "strongroom.settings")
    import django

    django.setup()
    stale = []
    for name, make in DOCUMENTS.items():
        text, path = make(), DOCS / name
        if check and (not path.exists() or path.read_text() != text):
            stale.append(name)
        elif not check:
            path.write_text(text)
    if stale:
        print(f"docs/{', docs/'.join(stale)}: not what the code says; run `make docs` and commit")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))

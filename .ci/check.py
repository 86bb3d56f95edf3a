"""`make check`: format, lint, types, imports, drift. Every check runs, offline; one that fails fails the whole."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
NO_TORCH = (
    "import sys, strongroom, training, training.spec, inference, django; django.setup();"
    "from django.core.management import call_command; call_command('check');"
    "sys.exit('torch' in sys.modules and 'importing strongroom, or manage.py check, imports torch')"
)
CHECKS: dict[str, list[str]] = {
    "format": ["ruff", "format", "--check", "-q", "."],
    "lint": ["ruff", "check", "-q", "."],
    "types": [
        "mypy",
        *(f"platform/{name}" for name in ("sealing", "sandbox", "chat", "strongroom")),
        "inference",
        "training",
    ],
    "imports": ["lint-imports"],
    "no torch": ["python", "-c", NO_TORCH],
    "migrations": ["python", "manage.py", "makemigrations", "--check", "--dry-run"],
    "generated documents": ["python", ".ci/generate.py", "--check"],
    "Dockerfile": ["hadolint", "docker/Dockerfile"],
    "compose file": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml"],
}


def main() -> int:
    failed = []
    with tempfile.TemporaryDirectory(prefix="sr-check-") as home:
        environment = os.environ | {
            "STRONGROOM_HOME": home,
            "STRONGROOM_MODE": "embedded",
            "DJANGO_SETTINGS_MODULE": "strongroom.settings",
        }
        for name, command in CHECKS.items():
            began = time.monotonic()
            program = [str(BIN / command[0]), *command[1:]]
            done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            good = done.returncode == 0
            print(f"{'ok    ' if good else 'FAILED'} {name}  ({time.monotonic() - began:.1f} s)", flush=True)
            if not good:
                failed.append(name)
                print(done.stdout + done.stderr, flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

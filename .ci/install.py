"""Installs the locked packages into .venv by uv: `install.py cpu|gpu|language|dev|clients|peers`.

uv does not read pip's configuration, so pip's find-links and indexes are passed on. Without a wheel of torch there, the
CPU build is taken, not gigabytes of CUDA (unless the extra is gpu).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
BESIDE = ("clients", "peers")  # in environments of their own, .venv/clients and .venv/peers


def pip_setting(name: str) -> list[str]:
    """The words of one of pip's settings, from its files and its environment."""
    done = subprocess.run([BIN / "pip", "config", "list"], capture_output=True, text=True, check=False)
    words: list[str] = []
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.split(".", 1)[-1] == name:
            words += [w for w in value.strip("'\"").replace("\\n", " ").split() if w not in words]
    return words


def sources() -> list[str]:
    """pip's sources as uv's options."""
    options: list[str] = []
    for name, option in (
        ("find-links", "--find-links"),
        ("index-url", "--default-index"),
        ("extra-index-url", "--index"),
    ):
        for place in pip_setting(name):
            if not place.startswith("file://") or Path(place.removeprefix("file://")).exists():
                options += [option, place]
    return options


def torch_at_hand() -> bool:
    """Whether pip's find-links offer a wheel of torch."""
    folders = [Path(place.removeprefix("file://")) for place in pip_setting("find-links")]
    return any(folder.is_dir() and any(folder.glob("torch-*.whl")) for folder in folders)


def cpu_only() -> dict[str, str]:
    """uv's settings for the CPU build of torch; none where the wheels at hand say which build it is."""
    return {} if torch_at_hand() else {"UV_TORCH_BACKEND": "cpu"}


def install(*arguments: str, environment: dict[str, str] | None = None, python: Path = BIN / "python") -> None:
    # Bytecode now: a job imports torch where nothing can be written, and would compile it again each time (3 s).
    command = [str(BIN / "uv"), "pip", "install", "-q", "--compile-bytecode", "--python", str(python)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=os.environ | (environment or {}), check=False)
    if done.returncode:
        raise SystemExit(f"the packages could not be installed: {' '.join(arguments)}")


def check_compiler() -> None:
    """llama-cpp-python has no wheel: it is built from source, by tools that pip does not bring."""
    missing = [name for name, program in (("a C++ compiler", "c++"), ("make or ninja", "make")) if not which(program)]
    if missing:
        raise SystemExit(f"the extra `language` needs {' and '.join(missing)}: apt install build-essential cmake")


def main(what: str) -> None:
    options = [*sources(), "--index-strategy", "unsafe-best-match"]
    if what == "dev":
        install(*options, "-r", "requirements/dev.lock")
        return
    if what in BESIDE:
        beside = BIN.parent / what
        subprocess.run([BIN / "uv", "venv", "-q", "--allow-existing", "--python", BIN / "python", beside], check=True)
        install(*options, "--no-deps", "-r", f"requirements/{what}.lock", python=beside / "bin" / "python")
        if what == "peers":
            torch = ("--no-deps", "-r", "requirements/torch.lock")
            install(*options, *torch, environment=cpu_only(), python=beside / "bin" / "python")
        return
    if what == "language":
        check_compiler()
        print("building llama.cpp and installing the extra `language` (4 to 5 minutes on 2 cores, once) …", flush=True)
        install(*options, "--no-deps", "-r", "requirements/language.lock", "-r", "requirements/examples.lock")
        return
    print("installing the locked packages into .venv …", flush=True)
    install(*options, "-r", f"requirements/{what}.lock")
    install(*options, "-r", "requirements/torch.lock", environment=cpu_only() if what == "cpu" else {})
    install(*options, "--no-deps", "--no-build-isolation", "-e", ".")
    subprocess.run(
        [BIN / "python", "-m", "compileall", "-q", "platform", "inference", "training"], cwd=ROOT, check=True
    )


if __name__ == "__main__":
    main(sys.argv[1])

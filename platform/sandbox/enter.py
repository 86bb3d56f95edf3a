"""Going in: a process with one thread closes itself off, for good, by one profile. Each wall is enough by itself.

Order matters: namespaces need the single thread, Landlock and capabilities need no_new_privs or rights that are then
dropped, the system call filter comes last because it refuses what the others are built with.
"""

from __future__ import annotations

import os
import tempfile

from sandbox import landlock, limits, linux
from sandbox.errors import NotSingleThreaded, SandboxUnavailable
from sandbox.profiles import Profile, named, readable_paths
from sandbox.report import Mode, Report, known_mode

# Imported here, not in enter(): loading libseccomp looks it up by a process, which is refused later.
try:
    from sandbox import seccomp
except (RuntimeError, OSError, ImportError):  # no libseccomp on this machine
    seccomp = None  # type: ignore[assignment]  # None is the absence of the module

MODE_VARIABLE = "STRONGROOM_SANDBOX"


def enter(profile: str, *, memory_bytes: int, mode: Mode | None = None, parent: int | None = None) -> Report:
    """Lock this process in and say what walls stand. Without `mode` the one given to start() counts, else auto.

    `parent` is the pid to die with; a zygote notes its own before it forks. Without it, whoever is the parent now.
    """
    chosen, mode = named(profile), known_mode(mode or os.environ.get(MODE_VARIABLE) or "auto")
    linux.die_with(os.getppid() if parent is None else parent)
    if mode == "off":
        return Report(off=True)
    if (threads := thread_count()) != 1:
        raise NotSingleThreaded(threads)
    report = _close(chosen, memory_bytes, os.getppid())
    if mode == "require" and report.missing:
        raise SandboxUnavailable(report.missing)
    return report


def thread_count() -> int:
    """As the kernel counts them: a library's native threads too, which threading.active_count() does not see."""
    return len(os.listdir("/proc/self/task"))


def _close(profile: Profile, memory_bytes: int, parent: int) -> Report:
    # Nothing is writable inside; libraries that ask for a temporary folder get a name that is never made.
    tempfile.tempdir = "/nonexistent"
    os.chdir("/")
    paths = readable_paths()
    limits.apply(profile, memory_bytes)
    namespaces = linux.leave_namespaces()
    if namespaces:
        limits.bound_threads(profile)
    linux.no_new_privileges()
    version = _landlock(paths)
    linux.drop_capabilities()
    # A change of credentials may clear both; set again where nothing can change them any more.
    linux.not_dumpable()
    linux.die_with(parent)
    return Report(landlock=version, seccomp=_seccomp(profile), namespaces=namespaces)


def _landlock(paths: tuple[str, ...]) -> int:
    try:
        return landlock.restrict_to(paths)
    except OSError:  # switched off at boot or hidden by a container: the report says that it is missing
        return 0


def _seccomp(profile: Profile) -> bool:
    if seccomp is None:
        return False
    try:
        seccomp.load(profile)
    except OSError:
        return False
    return True

"""The few calls that Python's os module lacks (prctl, unshare, capset, raw system calls). No policy in here."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def system_call(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *(_widened(argument) for argument in arguments)))


def _widened(argument: object) -> object:
    """A plain int would travel as 32 bits and leave the register's upper half undefined."""
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def prctl(option: int, argument: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def no_new_privileges() -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    """No core file, and no other process of this user may look into our memory or descriptors."""
    prctl(PR_SET_DUMPABLE, 0)


def die_with(parent: int) -> None:
    """SIGKILL when `parent` ends. The kernel watches the *thread* of the parent that started us, not the process.

    A fork clears the setting, so each process calls this for itself. A parent that was gone before is found by
    comparing: then we do what the kernel would have done.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def leave_namespaces() -> bool:
    """A network without interfaces, System V objects of its own, and no user of this machine: False where refused."""
    everything = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC
    without_user = CLONE_NEWNET | CLONE_NEWIPC  # root in a container that forbids user namespaces
    return any(_libc.unshare(flags) == 0 for flags in (everything, without_user))


def drop_capabilities() -> None:
    """All of them, for good: root without capabilities is an ordinary user that owns root's files."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break  # past the kernel's last one, or an ordinary user, whose bounding set gives nothing without exec
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")

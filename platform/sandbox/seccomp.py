"""The filter of system calls, made from a profile's names by libseccomp. It knows arguments where a name is not enough.

Everything unnamed answers EPERM; three calls answer ENOSYS, because glibc and others then take an older way that the
filter can judge (clone3 and openat2 hide their flags behind a pointer).
"""

from __future__ import annotations

import errno
import fcntl
import os

import pyseccomp
from pyseccomp import EQ, MASKED_EQ, Arg

from sandbox.profiles import Profile

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CLONE_THREAD = 0x00010000
NOT_THERE = ("clone3", "openat2", "io_uring_setup")
# Not F_SETOWN, F_SETSIG and their kind: they make the kernel send a signal to any process of this user.
FCNTL_COMMANDS = (
    *(fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL),
    *(fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_GETLK, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW),
    *(fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS, fcntl.F_GETPIPE_SZ, fcntl.F_SETPIPE_SZ),
)
IOCTL_REQUESTS = (0x541B, 0x5421, 0x5450, 0x5451, 0x5401)  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, TCGETS (isatty)
PR_SET_VMA = 0x53564D41
PRCTL_OPTIONS = (2, 3, 15, 16, 21, 39, PR_SET_VMA)  # get pdeathsig, dumpable; set, get name; get seccomp, no_new_privs


def load(profile: Profile) -> None:
    """Closed from here on, for every thread of the process; OSError where the kernel refuses."""
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ERRNO(errno.EPERM))
    rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
    for name in sorted(profile.system_calls):
        _allow(rules, name)
    for name in NOT_THERE:
        if _number(name) is not None:
            rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), name)
    _allow(rules, "open", Arg(1, MASKED_EQ, WRITING, 0))
    _allow(rules, "openat", Arg(2, MASKED_EQ, WRITING, 0))
    _allow(rules, "clone", Arg(0, MASKED_EQ, CLONE_THREAD, CLONE_THREAD))
    _only_itself(rules)
    for position, name, values in (
        (1, "fcntl", FCNTL_COMMANDS),
        (1, "ioctl", IOCTL_REQUESTS),
        (0, "prctl", PRCTL_OPTIONS),
    ):
        for value in values:
            _allow(rules, name, Arg(position, EQ, value))
    rules.load()


def _only_itself(rules: pyseccomp.SyscallFilter) -> None:
    """Signals and limits: this process's own; kill(0) and kill(-1) reach others and are refused."""
    own = os.getpid()
    for name in ("kill", "tgkill"):
        _allow(rules, name, Arg(0, EQ, own))
    _allow(rules, "prlimit64", Arg(0, EQ, 0))


def _allow(rules: pyseccomp.SyscallFilter, name: str, *arguments: Arg) -> None:
    """A name that this architecture or this libseccomp does not have needs no rule: it stays refused."""
    if _number(name) is not None:
        rules.add_rule(pyseccomp.ALLOW, name, *arguments)


def _number(name: str) -> int | None:
    number = int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))
    return number if number >= 0 else None

"""What each kind of sandboxed process may do: one table of profiles, their system calls, the files they may read.

Whatever is not named here is refused (EPERM): the lists say what is allowed, so a system call that a later kernel
brings is refused too. Nothing here makes a system call of its own; landlock.py, seccomp.py and limits.py apply it.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sandbox.errors import UnknownProfile

GIB = 1 << 30

# What one process may hold unless its caller says otherwise.
DEFAULT_MEMORY_BYTES = 4 * GIB

# Our packages that run inside, found by name: never a folder of sys.path, which would open the repository.
CODE_PACKAGES = ("sealing", "sandbox", "chat", "inference", "training")
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
# Read by the dynamic loader, glibc (number of processors, size of the stack), torch's and ONNX Runtime's cpuinfo.
# Below /proc only this very process, and of it neither memory nor environment.
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/maps",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/status",
    "/proc/self/fd",
)


def _calls(names: str) -> frozenset[str]:
    return frozenset(names.split())


MEMORY = _calls(
    "brk mmap munmap mprotect mremap madvise msync mincore mlock munlock membarrier memfd_create "
    "get_mempolicy pkey_alloc pkey_free pkey_mprotect"
)
# Opening is apart (seccomp.py allows it for reading only); ftruncate and fallocate work on descriptors handed over.
FILES = _calls(
    "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek close close_range stat fstat lstat "
    "newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd getdents getdents64 ftruncate fallocate "
    "fsync fdatasync copy_file_range sendfile dup dup2 dup3 flock fadvise64 statfs fstatfs umask pipe pipe2 "
    "eventfd eventfd2"
)
WAITING = _calls(
    "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 futex "
    "futex_waitv timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4 pause sched_yield "
    "nanosleep clock_nanosleep restart_syscall wait4 waitid"
)
TIME = _calls(
    "time gettimeofday clock_gettime clock_getres times getitimer setitimer alarm timer_create timer_settime "
    "timer_gettime timer_delete timer_getoverrun"
)
ITSELF = _calls(
    "exit exit_group getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid "
    "getgroups capget getrusage getrlimit getcpu sched_getaffinity sched_getparam sched_getscheduler "
    "sched_get_priority_max sched_get_priority_min getpriority sysinfo uname getrandom arch_prctl set_tid_address "
    "set_robust_list get_robust_list rseq sigaltstack rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending "
    "rt_sigtimedwait rt_sigsuspend"
)
# A channel that was handed over: talking on it, never making or addressing one.
CHANNEL = _calls(
    "sendmsg sendmmsg sendto recvmsg recvmmsg recvfrom shutdown getsockname getpeername getsockopt setsockopt"
)
# asyncio calls listen once more on the socket that the agent bound; bind and connect stay refused.
SERVING = _calls("accept accept4 listen")


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of process. `code_bytes` is the address space of its libraries, stacks and arenas before any work."""

    name: str
    system_calls: frozenset[str]
    code_bytes: int
    open_files: int
    threads: int


COMPUTING = MEMORY | FILES | WAITING | TIME | ITSELF | CHANNEL

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            # Measured: torch, its exporter and ONNX Runtime take 0.9 GiB of address space at 2 threads, 1.4 at 8.
            Profile("job-cpu", COMPUTING, code_bytes=2 * GIB, open_files=256, threads=512),
            # numpy and ONNX Runtime take 0.2 GiB; each thread adds a stack of 8 MiB and an arena of 64.
            Profile("cell-cpu", COMPUTING | SERVING, code_bytes=1 * GIB, open_files=4096, threads=512),
        )
    }
)


def named(name: str) -> Profile:
    if name not in PROFILES:
        raise UnknownProfile(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def readable_paths() -> tuple[str, ...]:
    """Existing files and folders of code and system facts; all else on this machine is closed inside."""
    standard = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    wanted = [*standard, *site.getsitepackages(), *_package_folders(), *_interpreter_libraries()]
    wanted += [*SYSTEM_LIBRARIES, *SYSTEM_FILES]
    return tuple(dict.fromkeys(path for path in wanted if os.path.exists(path)))


def _package_folders() -> list[str]:
    folders: list[str] = []
    for name in CODE_PACKAGES:
        spec = importlib.util.find_spec(name)
        folders += list(spec.submodule_search_locations or ()) if spec else []
    return folders


def _interpreter_libraries() -> list[str]:
    """Where libpython lies when Python was built elsewhere than in the system's folders."""
    names = ("libpython3.so", f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0")
    return [os.path.join(sys.base_prefix, "lib", name) for name in names]

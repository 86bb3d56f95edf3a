"""Landlock by its three system calls: from here on only the given paths open, and only for reading.

It binds the calling thread and what it starts; that there is no other thread is for enter.py to see to. Metadata
(stat, whether a path exists) is not its business; descriptors opened before entry stay open.
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

from sandbox.linux import no_new_privileges, system_call

# The numbers are the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
RULE_PATH_BENEATH = 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3

# Rights over files that each ABI handles: the thirteen of the first, then refer (2), truncate (3), device ioctl (5).
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
NETWORK_RIGHTS = 0b11  # bind and connect TCP, from ABI 4
SCOPES = 0b11  # abstract sockets and signals stay inside, from ABI 6


def abi() -> int:
    """The kernel's version of Landlock; 0 where it has none or hides it."""
    return max(0, system_call(CREATE_RULESET, None, 0, VERSION_FLAG))


def restrict_to(paths: Iterable[str]) -> int:
    """Close everything but reading below `paths`; answers the ABI, 0 if the kernel has none and nothing was closed."""
    version = abi()
    if version == 0:
        return 0
    no_new_privileges()
    ruleset = _checked(system_call(CREATE_RULESET, *_attributes(version), 0), "landlock_create_ruleset")
    try:
        for path in paths:
            _allow_reading(ruleset, path)
        _checked(system_call(RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return version


def _attributes(version: int) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """The ruleset as wide as this kernel knows it: a wider one would be refused, a narrower one leaves rights open."""
    fields = [FILE_RIGHTS[min(version, 5)]]
    fields += [NETWORK_RIGHTS] if version >= 4 else []
    fields += [SCOPES] if version >= 6 else []
    packed = struct.pack(f"={len(fields)}Q", *fields)
    return ctypes.create_string_buffer(packed, len(packed)), len(packed)


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # not there, or closed to this user already
    try:
        rights = READ_FILE | READ_DIR if stat.S_ISDIR(os.fstat(descriptor).st_mode) else READ_FILE
        packed = struct.pack("=Qi", rights, descriptor)
        rule = ctypes.create_string_buffer(packed, len(packed))
        _checked(system_call(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(descriptor)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result

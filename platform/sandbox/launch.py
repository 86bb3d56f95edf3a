"""First code of a sandboxed process, run by path as `python -I -S launch.py PARENT NUMBERS PROGRAM …`, then replaced.

It ties the process to its parent and moves the inherited descriptors to 3, 4, 5 … in the order given. It is done here,
not between fork and exec of the parent, because the parent has threads and Python code there can deadlock. Only the
standard library is known: neither site-packages nor this package is on its path.
"""

import ctypes
import fcntl
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
FIRST = 3


def main() -> None:
    parent, numbers, program = int(sys.argv[1]), [int(part) for part in sys.argv[2].split(",")], sys.argv[3:]
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")
    # Ctrl-C at a terminal reaches the whole group; what it means for a job is for the parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    renumber(numbers)
    os.execv(program[0], program)  # noqa: S606  # no shell: the list comes from start(), our own code


def renumber(numbers: list[int]) -> None:
    """Copies go to free numbers above all targets first, so that none is overwritten before it is moved."""
    above = FIRST + len(numbers)
    copies = [fcntl.fcntl(number, fcntl.F_DUPFD, above) for number in numbers]
    for target, copy in enumerate(copies, FIRST):
        os.dup2(copy, target)
    os.closerange(above, max(*copies, *numbers) + 1)


if __name__ == "__main__":
    main()

"""Hostile code in the real sandbox, one thing each: what a tenant's model or data might try after taking over a parser.

Each attempt runs in a process of its own that entered as a job or a cell does, with every wall required. It knows
nothing of how the walls are made; that ordinary work goes on inside is shown in tests/sandbox/.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.inside import Answer, inside

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES = ("job-cpu", "cell-cpu")
pytestmark = pytest.mark.slow  # nearly two hundred processes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A STRONGROOM_HOME with a secret in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "secret.key").write_text("plaintext")
    return folder


def refused(answer: Answer) -> bool:
    return answer.errno in (errno.EPERM, errno.EACCES)


# --- files: nothing but code can be read


def read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(16).hex()


def list_folder(path: str) -> list[str]:
    import os

    return os.listdir(path)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/etc/hostname",
        "/proc/1/environ",
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/self/root/etc/passwd",
        "/proc/thread-self/environ",
        "/proc/mounts",
        "/proc/kallsyms",
        "/proc/net/unix",
        str(REPOSITORY / "pyproject.toml"),
        str(REPOSITORY / "README.md"),
        str(REPOSITORY / "platform" / "strongroom" / "__init__.py"),
        str(REPOSITORY / ".git" / "HEAD"),
        str(REPOSITORY / "tests" / "security" / "test_sandbox_refuses.py"),
    ],
)
def test_a_file_that_is_no_code_is_not_read(path: str, profile: str) -> None:
    assert refused(inside(read, profile=profile, facts={"path": path}))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_file_in_the_home_folder_is_not_read(home: Path, profile: str) -> None:
    assert refused(inside(read, profile=profile, facts={"path": str(home / "secret.key")}))


def test_a_file_reached_by_a_link_in_a_code_folder_is_not_read(home: Path) -> None:
    link = REPOSITORY / "platform" / "sandbox" / "_link_to_secret"
    link.symlink_to(home / "secret.key")
    try:
        assert refused(inside(read, facts={"path": str(link)}))
    finally:
        link.unlink()


def test_code_itself_is_read() -> None:
    answer = inside(read, facts={"path": str(REPOSITORY / "platform" / "sandbox" / "enter.py")})
    assert answer.error is None
    assert answer.value == b'"""Going in: a p'.hex()


@pytest.mark.parametrize("path", ["/", "/proc", "/tmp", "/etc", str(REPOSITORY)])  # noqa: S108  # looked at, not used
def test_a_folder_that_holds_no_code_is_not_listed(path: str) -> None:
    assert refused(inside(list_folder, facts={"path": path}))


def test_the_memory_and_the_descriptors_of_the_parent_are_not_read() -> None:
    for name in ("mem", "environ", "maps", "fd/0"):
        assert refused(inside(read, facts={"path": f"/proc/{os.getpid()}/{name}"})), name


def test_a_later_thread_reads_no_more_than_the_first() -> None:
    def read_in_a_thread(path: str) -> object:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: open(path).read()).result()

    assert refused(inside(read_in_a_thread, facts={"path": "/etc/passwd"}))


# --- files: nothing can be written


def create(path: str) -> None:
    open(path, "x").close()


def append(path: str) -> None:
    open(path, "ab").close()


def truncate_while_reading(path: str) -> None:
    import os

    os.open(path, os.O_RDONLY | os.O_TRUNC)


def nameless_file(path: str) -> None:
    import os

    os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR)


def truncate(path: str) -> None:
    import os

    os.truncate(path, 0)


def make_folder(path: str) -> None:
    import os

    os.mkdir(path + ".d")


def remove(path: str) -> None:
    import os

    os.unlink(path)


def rename(path: str) -> None:
    import os

    os.rename(path, path + ".moved")


def link(path: str) -> None:
    import os

    os.link(path, path + ".link")


def link_by_name(path: str) -> None:
    import os

    os.symlink(path, path + ".link")


def change_mode(path: str) -> None:
    import os

    os.chmod(path, 0o700)


def change_owner(path: str) -> None:
    import os

    os.chown(path, os.getuid(), os.getgid())


def change_times(path: str) -> None:
    import os

    os.utime(path)


def set_attribute(path: str) -> None:
    import os

    os.setxattr(path, "user.mark", b"1")


def make_pipe(path: str) -> None:
    import os

    os.mkfifo(path + ".fifo")


def make_device(path: str) -> None:
    import os
    import stat

    os.mknod(path + ".disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))


WRITES = [
    *(append, truncate_while_reading, nameless_file, truncate, make_folder, remove, rename, link, link_by_name),
    *(change_mode, change_owner, change_times, set_attribute, make_pipe, make_device),
]


@pytest.mark.parametrize("attempt", WRITES, ids=lambda attempt: attempt.__name__)
@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_is_written_even_where_code_may_be_read(attempt: Callable[[str], None], profile: str) -> None:
    with tempfile.TemporaryDirectory(prefix="_written_", dir=REPOSITORY / "platform" / "sandbox") as folder:
        target = Path(folder, "code.py")
        target.write_text("left alone")
        before = os.stat(target)
        assert refused(inside(attempt, profile=profile, facts={"path": str(target)}))
        after = os.stat(target)
        assert target.read_text() == "left alone"
        assert (before.st_mode, before.st_uid, before.st_mtime_ns) == (after.st_mode, after.st_uid, after.st_mtime_ns)
        assert os.listdir(folder) == ["code.py"]


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/var/tmp", "/proc/self/fd"])  # noqa: S108  # must stay empty
def test_no_folder_takes_a_new_file(folder: str) -> None:
    path = f"{folder}/strongroom-left-over-{os.getpid()}"
    assert refused(inside(create, facts={"path": path}))
    assert not os.path.exists(path)


def test_a_descriptor_given_for_reading_is_not_opened_again_for_writing(home: Path) -> None:
    def reopen(path: str) -> None:
        import os

        os.open(path, os.O_RDWR)

    with open(home / "secret.key", "rb") as sealed:
        answer = inside(reopen, facts={"path": "/proc/self/fd/4"}, descriptors=[sealed.fileno()])
    assert refused(answer)


# --- network


def make_socket(family: int, kind: int) -> None:
    import socket

    socket.socket(family, kind)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_INET6, socket.SOCK_DGRAM),
        (socket.AF_UNIX, socket.SOCK_STREAM),
        (socket.AF_UNIX, socket.SOCK_DGRAM),
        (socket.AF_NETLINK, socket.SOCK_RAW),
        (socket.AF_PACKET, socket.SOCK_RAW),
        (40, socket.SOCK_STREAM),  # AF_VSOCK: to the machine below
    ],
)
def test_no_socket_is_made(family: int, kind: int, profile: str) -> None:
    assert refused(inside(make_socket, profile=profile, facts={"family": int(family), "kind": int(kind)}))


def test_no_pair_of_sockets_is_made() -> None:
    def pair() -> None:
        import socket

        socket.socketpair()

    assert refused(inside(pair))


@pytest.fixture
def unconnected() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        yield made


def test_a_socket_from_outside_is_neither_bound_nor_connected(unconnected: socket.socket) -> None:
    def bind() -> None:
        import socket

        socket.socket(fileno=4).bind("\0strongroom-test")

    def connect() -> None:
        import socket

        socket.socket(fileno=4).connect("\0strongroom-test")

    for profile in PROFILES:
        for attempt in (bind, connect):
            assert refused(inside(attempt, profile=profile, descriptors=[unconnected.fileno()])), attempt.__name__


def test_a_socket_from_outside_sends_to_no_abstract_name(unconnected: socket.socket) -> None:
    def send() -> None:
        import socket

        socket.socket(fileno=4).sendto(b"data", "\0strongroom-listens")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0strongroom-listens")
        assert refused(inside(send, descriptors=[unconnected.fileno()]))
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.recv(16)


def test_a_job_accepts_no_connections() -> None:
    def accept() -> None:
        import socket

        socket.socket(fileno=4).accept()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind("")
        listening.listen()
        assert refused(inside(accept, profile="job-cpu", descriptors=[listening.fileno()]))


# --- other programs and processes


def fork() -> None:
    import os

    if os.fork() == 0:
        os._exit(0)


def run_program() -> None:
    import os

    os.execv("/bin/true", ["/bin/true"])  # noqa: S606  # must be refused


def spawn_program() -> None:
    import os

    os.posix_spawn("/bin/true", ["/bin/true"], {})


def start_process() -> None:
    import subprocess

    subprocess.run(["/bin/true"], check=False)


def run_program_from_memory() -> None:
    import os

    with open("/usr/lib/x86_64-linux-gnu/libc.so.6", "rb") as file:
        program = os.memfd_create("program", 0)
        os.write(program, file.read())
    os.execve(program, ["program"], {})  # noqa: S606  # must be refused


def become_another_user() -> None:
    import os

    os.setuid(65534)


def make_a_group_of_its_own() -> None:
    import os

    os.setsid()


def change_root() -> None:
    import os

    os.chroot("/usr/lib")


def kill_the_group() -> None:
    import os

    os.kill(0, 9)


def kill_everything() -> None:
    import os

    os.kill(-1, 9)


STARTS = [
    *(fork, run_program, spawn_program, start_process, become_another_user, make_a_group_of_its_own),
    *(change_root, kill_the_group, kill_everything),
]
if platform.machine() == "x86_64" and os.path.exists("/usr/lib/x86_64-linux-gnu/libc.so.6"):
    STARTS.append(run_program_from_memory)


@pytest.mark.parametrize("attempt", STARTS, ids=lambda attempt: attempt.__name__)
@pytest.mark.parametrize("profile", PROFILES)
def test_no_program_runs_and_no_process_is_touched(attempt: Callable[[], None], profile: str) -> None:
    assert refused(inside(attempt, profile=profile))


def signal_parent(parent: int) -> None:
    import os

    os.kill(parent, 0)


def open_parent(parent: int) -> None:
    import os

    os.pidfd_open(parent)


def limit_parent(parent: int) -> None:
    import resource

    resource.prlimit(parent, resource.RLIMIT_CORE)


def bind_parent_to_one_core(parent: int) -> None:
    import os

    os.sched_setaffinity(parent, {0})


def slow_parent_down(parent: int) -> None:
    import os

    os.setpriority(os.PRIO_PROCESS, parent, 19)


def have_the_kernel_signal_parent(parent: int) -> None:
    import fcntl

    fcntl.fcntl(3, fcntl.F_SETOWN, parent)


def choose_the_signal(parent: int) -> None:
    import fcntl

    fcntl.fcntl(3, fcntl.F_SETSIG, 9)


ON_PARENT = [
    *(signal_parent, open_parent, limit_parent, bind_parent_to_one_core, slow_parent_down),
    *(have_the_kernel_signal_parent, choose_the_signal),
]


@pytest.mark.parametrize("attempt", ON_PARENT, ids=lambda attempt: attempt.__name__)
def test_the_parent_is_out_of_reach(attempt: Callable[[int], None]) -> None:
    assert refused(inside(attempt, facts={"parent": os.getpid()}))


# --- the kernel

# Numbers of x86_64; each call with arguments that would do something, or zeros where its mere presence counts.
KERNEL_CALLS = {
    "ptrace": (101, 16, "parent", 0, 0),
    "process_vm_readv": (310, "parent", 0, 0, 0, 0, 0),
    "process_vm_writev": (311, "parent", 0, 0, 0, 0, 0),
    "pidfd_send_signal": (424, 3, 0, 0, 0),
    "rt_sigqueueinfo": (129, "parent", 0, 0),
    "tkill": (200, "parent", 0),
    "unshare": (272, 0x10000000),
    "setns": (308, 3, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "open_tree": (428, -100, 0, 0),
    "fsopen": (430, 0, 0),
    "pivot_root": (155, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "keyctl": (250, 0, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0, 0, 0),
    "syslog": (103, 3, 0, 0),
    "sethostname": (170, 0, 0),
    "clock_settime": (227, 0, 0),
    "swapon": (167, 0, 0),
    "acct": (163, 0),
    "shmget": (29, 0, 4096, 0o1600),
    "semget": (64, 0, 1, 0o1600),
    "msgget": (68, 0, 0o1600),
    "mq_open": (240, 0, 0, 0, 0),
    "name_to_handle_at": (303, -100, 0, 0, 0, 0),
    "open_by_handle_at": (304, -100, 0, 0),
    "fanotify_init": (300, 0, 0),
    "inotify_init1": (294, 0),
    "personality": (135, 0x0400000),
    "iopl": (172, 3),
    "capset": (126, 0, 0),
    "setrlimit": (160, 0, 0),
    "seccomp": (317, 1, 0, 0),
    "landlock_create_ruleset": (444, 0, 0, 1),
    "io_uring_enter": (426, 3, 0, 0, 0, 0),
    "vmsplice": (278, 3, 0, 0, 0),
    "process_madvise": (440, 3, 0, 0, 0, 0),
    "kcmp": (312, "parent", "parent", 0, 0, 0),
    "migrate_pages": (256, "parent", 0, 0, 0),
    "ioprio_set": (251, 1, "parent", 0),
    "prctl_set_dumpable": (157, 4, 1, 0, 0, 0),
    "prctl_set_pdeathsig": (157, 1, 0, 0, 0, 0),
    "ioctl_push_input": (16, 0, 0x5412, 0),
    "unknown_to_any_kernel_yet": (1000,),
}


def call(numbers: list[object], parent: int) -> int:
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(*(ctypes.c_long(parent if number == "parent" else number) for number in numbers)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
@pytest.mark.parametrize("name", KERNEL_CALLS)
def test_a_system_call_that_no_computation_needs_is_refused(name: str) -> None:
    answer = inside(call, facts={"numbers": list(KERNEL_CALLS[name]), "parent": os.getpid()})
    assert answer.errno == errno.EPERM


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
@pytest.mark.parametrize(("name", "number"), [("clone3", 435), ("openat2", 437), ("io_uring_setup", 425)])
def test_a_call_that_hides_its_arguments_seems_not_to_exist(name: str, number: int) -> None:
    assert inside(call, facts={"numbers": [number, 0, 0, 0, 0], "parent": 0}).errno == errno.ENOSYS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other instruction sets have no second kind of call")
def test_the_calls_of_another_architecture_end_the_process() -> None:
    def old_fork() -> str:
        import ctypes
        import mmap

        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex("b802000000cd80c3"))  # mov eax, 2; int 0x80; ret: fork as 32-bit programs do
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        return "went on"

    answer = inside(old_fork)
    assert answer.value is None
    assert answer.exit_code is not None
    assert answer.exit_code < 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has x32")
def test_the_calls_of_x32_make_no_socket() -> None:
    answer = inside(call, facts={"numbers": [0x40000000 + 41, 1, 1, 0], "parent": 0})
    assert answer.value is None


# --- memory and limits


def test_no_more_memory_than_allowed() -> None:
    def grow() -> int:
        return len(bytearray(3 << 30))

    assert inside(grow, memory_bytes=512 << 20).error == "MemoryError"


def test_no_limit_is_raised_again() -> None:
    def raise_limits() -> list[str]:
        import resource

        raised = []
        for name in ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE"):
            which = getattr(resource, name)
            try:
                resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                raised.append(name)
            except (ValueError, OSError):  # how Python tells EPERM here
                pass
        return raised

    assert inside(raise_limits).value == []


def test_a_memory_file_grows_no_further_than_the_memory() -> None:
    def fill() -> int:
        import os

        memory = os.memfd_create("big")
        os.ftruncate(memory, 8 << 30)
        return os.fstat(memory).st_size

    assert inside(fill).errno == errno.EFBIG


def test_no_core_is_dumped_and_no_one_may_look_in() -> None:
    def look() -> list[object]:
        import ctypes
        import resource

        return [resource.getrlimit(resource.RLIMIT_CORE)[1], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)]

    assert inside(look).value == [0, 0]


def test_no_capability_is_left_to_root() -> None:
    def look() -> list[str]:
        with open("/proc/self/status") as status:
            return [line.split()[1] for line in status if line.startswith(("CapPrm", "CapEff", "CapInh", "CapAmb"))]

    assert set(inside(look).value) == {"0" * 16}


# --- threads made before entry


NATIVE_THREAD = """
import ctypes, ctypes.util
libc = ctypes.CDLL(None)
sleep = ctypes.cast(libc.pause, ctypes.c_void_p)
made = ctypes.c_ulong()
libc.pthread_create(ctypes.byref(made), None, sleep, None)
"""
PYTHON_THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("before", [NATIVE_THREAD, PYTHON_THREAD], ids=["native", "python"])
def test_a_process_with_an_older_thread_is_not_let_in(before: str, profile: str) -> None:
    assert inside(read, profile=profile, before=before, facts={"path": "/etc/passwd"}).refused == "NotSingleThreaded"


def test_a_process_that_imported_numpy_with_its_threads_is_not_let_in() -> None:
    answer = inside(
        read, before="import numpy", environment={"OPENBLAS_NUM_THREADS": "4"}, facts={"path": "/etc/passwd"}
    )
    assert answer.refused == "NotSingleThreaded"


# --- an ordinary user


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user runs every other test of this file already")
@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/hostname"])
def test_the_walls_hold_without_root_too(path: str) -> None:
    # Where Python lies may be closed to that user: what enter() asks sysconfig is loaded before.
    become_nobody = (
        "import os, sysconfig; sysconfig.get_config_vars(); os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    )
    answer = inside(read, before=become_nobody, facts={"path": path})
    assert refused(answer)
    assert answer.report == inside(list_folder, facts={"path": "/usr/lib"}).report

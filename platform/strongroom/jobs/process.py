"""A job's process as its worker holds it: started, spoken with over its socket, measured, ended.

All of it happens in the thread that started the process, since the kernel kills the process when that thread ends.
It knows packets and usage, no jobs and no database.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sandbox
from strongroom.jobs import packets

COMMAND = (sys.executable, "-m", "training.run")
DESCRIPTORS = 4
MEMORY_PART = 0.75  # of the machine: what one job may take, whatever it asks for
_TICKS = os.sysconf("SC_CLK_TCK")


def granted_bytes(asked_bytes: int) -> int:
    """The memory limit of a job's process: what its spec asks for, where this machine can give it."""
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(asked_bytes, int(machine_bytes * MEMORY_PART))


class Ended(Exception):
    """The process closed its end of the socket."""


class Process:
    """One `python -m training.run`."""

    def __init__(self, *, memory_bytes: int, mode: sandbox.Mode) -> None:
        self._child = sandbox.start(list(COMMAND), profile="job-cpu", memory_bytes=memory_bytes, mode=mode)
        self._poll = select.poll()
        self._poll.register(self._child.channel, select.POLLIN)
        self._core_seconds = 0.0
        self._peak_bytes = 0
        self.exit_code: int | None = None

    def send(self, packet: Mapping[str, Any], descriptors: Sequence[int] = (), *, wait_seconds: float = 5) -> bool:
        """False where the process does not read or is gone: then it is for the caller's patience to end it."""
        channel = self._child.channel
        channel.settimeout(wait_seconds)
        try:
            written = json.dumps(packet, ensure_ascii=False, separators=(",", ":"))  # as its size was looked at
            socket.send_fds(channel, [written.encode()], list(descriptors))
        except OSError:
            return False
        return True

    def send_tensors(self, packet: Mapping[str, Any], body: bytes) -> bool:
        """`body` inside the packet, or by descriptor where it would be over 64 KiB."""
        if len(body) * 4 // 3 + len(json.dumps(packet, ensure_ascii=False).encode()) < packets.PACKET_BYTES - 1024:
            return self.send({**packet, "body": base64.b64encode(body).decode()})
        memory = os.memfd_create("outputs", os.MFD_CLOEXEC)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(memory, view) :]
            return self.send(packet, [memory])
        finally:
            os.close(memory)

    def receive(self, seconds: float) -> packets.Packet | None:
        """The next packet, or None after `seconds`. Ended at its end, packets.Unreadable."""
        if not self._poll.poll(seconds * 1000):
            return None
        try:
            # Not socket.recv_fds: it drops the flags (Python 3.11).
            data, beside, flags, _ = self._child.channel.recvmsg(
                packets.PACKET_BYTES + 1, socket.CMSG_LEN(DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            raise Ended from None
        descriptors = received(beside)
        if not data:
            close(descriptors)
            raise Ended
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(data) > packets.PACKET_BYTES:
                raise packets.Unreadable("over 64 KiB")
            packet = packets.parse(data, tuple(descriptors))
        except packets.Unreadable:
            close(descriptors)
            raise
        if not isinstance(packet, packets.Batch):
            close(descriptors)
        return packet

    def usage(self) -> tuple[float, int]:
        """Core seconds and peak resident bytes so far; exact once it has ended."""
        if self.exit_code is None:
            self._look()
        return self._core_seconds, self._peak_bytes

    def end(self, *, patience_seconds: float = 0) -> None:
        """Waits so long for it to leave by itself, then kills it, and reads what it used."""
        if self.exit_code is not None:
            return
        deadline = time.monotonic() + patience_seconds
        while not self._reap(os.WNOHANG):
            if time.monotonic() >= deadline:
                self._child.process.kill()
                self._reap(0)
                break
            time.sleep(0.01)
        self._child.channel.close()

    def _reap(self, options: int) -> bool:
        pid, status, used = os.wait4(self._child.pid, options)
        if pid == 0:
            return False
        # Popen would wait by itself and throw the usage away.
        self.exit_code = self._child.process.returncode = os.waitstatus_to_exitcode(status)
        self._core_seconds = used.ru_utime + used.ru_stime
        self._peak_bytes = max(self._peak_bytes, used.ru_maxrss * 1024)
        return True

    def _look(self) -> None:
        try:
            fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{self._child.pid}/status").read_text()
        except OSError:
            return
        self._core_seconds = (int(fields[11]) + int(fields[12])) / _TICKS
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self._peak_bytes = max(self._peak_bytes, int(line.split()[1]) * 1024)


def received(beside: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a packet."""
    rights = [data for level, kind, data in beside if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
    return [number for data in rights for (number,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4])]


def close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""The zygote: imports numpy and ONNX Runtime once and forks cells from that, in milliseconds instead of a second.

`python -m inference.zygote`, descriptor 3 a SOCK_SEQPACKET to the agent. It is started before anything secret is read
and holds nothing secret: no session, no key, no connection but the agent's. Cells are its children and die with it;
it dies with the agent. Packets are JSON: `fork` (with two descriptors) and `kill` in; `ready`, `forked` or `failed`,
and later `ended` out.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, Final

import sandbox
from inference import cell, decode

CHANNEL: Final = 3
PACKET_BYTES: Final = 4096


def main() -> None:
    """Serve forks until the agent is gone."""
    channel = socket.socket(fileno=CHANNEL)
    children: dict[int, int] = {}  # pidfd → pid
    decode.import_pillow()
    with contextlib.suppress(ImportError):  # the extra `language` may not be installed
        importlib.import_module("inference.language.loading")
    gc.freeze()  # what exists now stays shared with the children: the collector writes no marks into it
    channel.send(b'{"type": "ready", "pid": %d}' % os.getpid())
    while True:
        ready, _, _ = select.select([CHANNEL, *children], [], [])
        for child in ready:
            if child != CHANNEL:
                _ended(channel, child, children.pop(child))
        if CHANNEL in ready and not _serve(channel, children):
            return


def _serve(channel: socket.socket, children: dict[int, int]) -> bool:
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, PACKET_BYTES, 2)
    except ConnectionError:
        return False
    if not packet:
        return False
    try:
        order = json.loads(packet)
        if order.get("type") == "kill":
            _kill(order.get("pid"), children)
            return True
        if order.get("type") != "fork" or len(descriptors) != 2:
            raise ValueError("a fork packet has two descriptors")
        pid = _fork(order, descriptors[0], descriptors[1], [channel.fileno(), *children])
    except (ValueError, KeyError, OSError) as error:
        _send(channel, {"type": "failed", "message": f"{type(error).__name__}: {error}"})
    else:
        children[os.pidfd_open(pid)] = pid
        _send(channel, {"type": "forked", "pid": pid})
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return True


def _fork(order: dict[str, Any], listening: int, agent: int, ours: list[int]) -> int:
    conditions = cell.Conditions(
        profile=str(order["profile"]),
        memory_bytes=int(order["memory_bytes"]),
        threads=int(order["threads"]),
        language_threads=int(order.get("language_threads", 1)),
        mode=order.get("mode", "auto"),
        parent=os.getpid(),
    )
    pid = os.fork()
    if pid == 0:
        _become(conditions, listening, agent, ours)
    return pid


def _become(conditions: cell.Conditions, listening: int, agent: int, ours: list[int]) -> None:
    """The child: nothing of the zygote's stack runs in it any more."""
    code = 1
    try:
        sandbox.die_with(conditions.parent or os.getppid())
        for descriptor in ours:
            os.close(descriptor)
        cell.run(socket.socket(fileno=listening), socket.socket(fileno=agent), conditions)
        code = 0
    except BaseException as failure:
        cell.tell_failure(failure)
    finally:
        os._exit(code)


def _kill(pid: object, children: dict[int, int]) -> None:
    for child, number in children.items():
        if number == pid:
            signal.pidfd_send_signal(child, signal.SIGKILL)


def _ended(channel: socket.socket, child: int, pid: int) -> None:
    os.close(child)
    _, status = os.waitpid(pid, 0)
    _send(channel, {"type": "ended", "pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _send(channel: socket.socket, packet: dict[str, Any]) -> None:
    try:
        channel.send(json.dumps(packet).encode())
    except OSError:
        sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()

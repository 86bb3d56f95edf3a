"""Celery's messages over files: each arrives once and whole, whoever else writes and reads at that moment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import filesystem

MESSAGES = 300
PRELUDE = """
import sys
from kombu import Connection
folder, name = sys.argv[1:]
connection = Connection("filesystem://", transport="strongroom.broker:Transport", transport_options={
    "data_folder_in": folder + "/messages", "data_folder_out": folder + "/messages",
    "control_folder": folder + "/control", "polling_interval": 0.01})
queue = connection.SimpleQueue("wake")
"""
CONSUMER = (
    PRELUDE
    + """
while True:
    message = queue.get(timeout=30)
    message.ack()
    if message.payload == "end":
        break
    print(message.payload, flush=True)
"""
)
PRODUCER = (
    PRELUDE
    + f"""
for number in range({MESSAGES}):
    queue.put(f"{{name}}-{{number}}-" + "x" * 5000)
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in ("messages", "control"):
        (tmp_path / name).mkdir()
    filesystem.Transport.global_state.clear()  # kombu remembers for the whole process which routes it has written
    yield tmp_path
    while OPENED:
        OPENED.pop().close()


OPENED: list[Any] = []  # kombu's queues do not keep their connection alive


def connection(folder: Path) -> Any:
    options = {"data_folder_in": str(folder / "messages"), "data_folder_out": str(folder / "messages")}
    options |= {"control_folder": str(folder / "control"), "polling_interval": 0.01}
    OPENED.append(Connection("filesystem://", transport="strongroom.broker:Transport", transport_options=options))
    return OPENED[-1]


def run(program: str, folder: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, str(folder), name], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_every_message_arrives_once_and_whole_with_several_writers_and_readers(folder: Path) -> None:
    consumers = [run(CONSUMER, folder, f"consumer {number}") for number in range(3)]
    producers = [run(PRODUCER, folder, f"producer {number}") for number in range(2)]
    assert [producer.wait(60) for producer in producers] == [0, 0]
    queue = connection(folder).SimpleQueue("wake")
    for _ in consumers:
        queue.put("end")
    told = [consumer.communicate(timeout=60)[0] for consumer in consumers]
    assert [consumer.returncode for consumer in consumers] == [0, 0, 0]
    expected = [f"producer {writer}-{number}-" + "x" * 5000 for writer in range(2) for number in range(MESSAGES)]
    assert sorted("".join(told).splitlines()) == sorted(expected)
    assert os.listdir(folder / "messages") == []


def test_messages_come_in_the_order_they_were_sent(folder: Path) -> None:
    queue = connection(folder).SimpleQueue("wake")
    for number in range(50):
        queue.put(number)
    messages = [queue.get(timeout=5) for _ in range(50)]
    assert [message.payload for message in messages] == list(range(50))
    for message in messages:
        message.ack()
    with pytest.raises(Empty):
        queue.get(block=False)


def test_what_is_not_written_to_the_end_is_no_message(folder: Path) -> None:
    (folder / "messages" / ".00000000000000000001_half.wake.msg.tmp").write_text('{"half')
    queue = connection(folder).SimpleQueue("wake")
    with pytest.raises(Empty):
        queue.get(block=False)
    assert queue.qsize() == 0


def test_a_message_of_another_queue_is_left_for_it(folder: Path) -> None:
    opened = connection(folder)
    opened.SimpleQueue("short").put("for short")
    with pytest.raises(Empty):
        opened.SimpleQueue("wake").get(block=False)
    assert opened.SimpleQueue("short").get(timeout=5).payload == "for short"


def test_only_its_user_reads_a_message(folder: Path) -> None:
    connection(folder).SimpleQueue("wake").put("wake up")
    (message,) = (folder / "messages").iterdir()
    assert message.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_many_processes_bind_their_queues_at_once_and_every_route_is_kept(folder: Path) -> None:
    bind = PRELUDE.replace('SimpleQueue("wake")', "SimpleQueue(name)")
    binders = [run(bind, folder, f"queue{number}") for number in range(6)]
    assert [binder.wait(60) for binder in binders] == [0] * 6
    for number in range(6):
        table = (folder / "control" / f"queue{number}.exchange").read_text()
        assert f"queue{number}" in table

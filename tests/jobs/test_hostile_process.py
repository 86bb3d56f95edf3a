"""A job's process that a hostile data set or model has taken over: whatever it says, the job ends properly."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import attempts as attempts_
from strongroom.jobs import prepare, process, supervise
from strongroom.jobs.models import Job, LogLine
from strongroom.jobs.states import State
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.vault import keys
from strongroom.vault.models import Artefact
from tests.callers import Deposit
from tests.jobs.test_attempts import children, sealed
from tests.jobs.work import LEASE_SECONDS, attempts, fresh, submitted, taken, training, worked

pytestmark = pytest.mark.slow  # real processes

HEAD = """
import atexit, base64, json, os, socket, sys, time
from uuid import UUID, uuid4
from sealing import Identity, SealWriter, new_data_key, wrap_data_key
channel = socket.socket(fileno=3)
data, descriptors, _, _ = socket.recv_fds(channel, 65536, 16)
start = json.loads(data)
slots = descriptors[1:]
def say(type, **fields):
    channel.send(json.dumps({"type": type, **fields}).encode())
def hear_out():
    # a socket closed over an unread packet resets the connection, and the last words with it
    channel.shutdown(socket.SHUT_RD)
    while channel.recv(65536):
        pass
atexit.register(hear_out)
def seal(kind, content, tenant=start["tenant"], **lies):
    artefact, key, slot = uuid4(), new_data_key(), slots.pop(0)
    writer = SealWriter(lambda piece: os.write(slot, piece), key, Identity(UUID(tenant), artefact, kind))
    writer.write(content)
    writer.close()
    wrapped = wrap_data_key(base64.b64decode(start["public_key"]), key, tenant=UUID(tenant), artefact=artefact,
                            generation=start["generation"])
    told = {"kind": kind, "artefact": str(artefact), "header_tag": base64.b64encode(writer.header_tag).decode(),
            "wrapped_data_key": base64.b64encode(wrapped).decode(), "size_bytes": writer.size_bytes, "about": {}}
    say("sealed", **(told | lies))
"""
TENSOR = '[{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]'
SIGNATURE = f'{{"inputs": {TENSOR}, "outputs": {TENSOR}}}'
RESULT = f'{{"signature": {SIGNATURE}, "metrics": {{}}}}'

Run = Callable[..., Job]


@pytest.fixture
def run(acme: Deposit, digits: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """One attempt at a training whose process is this program."""

    def run(program: str, attempts: int = 2, **resources: Any) -> Job:
        path = tmp_path / "hostile.py"
        path.write_text(HEAD + textwrap.dedent(program))
        monkeypatch.setattr(process, "COMMAND", (sys.executable, str(path)))
        submitted(acme, training(resources={"max_attempts": attempts, **resources}))
        return worked()

    return run


@pytest.mark.parametrize(
    "program",
    [
        "",
        "sys.exit(3)",
        "channel.send(b'nonsense')",
        "channel.send(b'{}')",
        "channel.send(b'[' * 60000)",
        "channel.send(json.dumps({'type': 'log', 'level': 'info', 'text': 'x' * 70000}).encode())",
        "say('failed', code='../..', message='', hint=None)",
        "say('failed', code='drained', message='', hint=None)",
        "say('failed', code='cancelled', message='', hint=None)",
        "say('batch', number=0, inputs=[], body='')",
        "say('progress', fraction='all of it')",
        "say('sealed', kind='model')",
        "seal('data', b'x')",
        "seal('checkpoint', b'x', artefact=str(uuid4()))",
        "seal('checkpoint', b'x', size_bytes=2)",
        "seal('checkpoint', b'x', header_tag=base64.b64encode(bytes(32)).decode())",
        "seal('checkpoint', b'x', artefact=start['inputs'][0]['artefact'])",
        "seal('checkpoint', b'x', tenant=str(uuid4()))",
        "seal('model', b'x'); seal('model', b'y')",
    ],
)
def test_what_nobody_understands_is_a_crash_and_the_job_is_tried_again(run: Run, acme: Deposit, program: str) -> None:
    job = run(program + "\ntime.sleep(60)" if "sys.exit" not in program and program else program)
    assert job.state == State.QUEUED
    assert attempts(job) == [(1, "lost")]
    assert children() == []


@pytest.mark.parametrize(
    "program",
    [
        "say('done', result={})",
        "seal('model', b'onnx'); say('done', result={})",
        f"seal('model', b'onnx'); seal('result', b'{RESULT}'[:9]); say('done', result={{}})",
        "seal('model', b'onnx'); seal('result', b'[]'); say('done', result={})",
        "seal('model', b'onnx'); seal('result', b'{\"signature\": 3}'); say('done', result={})",
        "seal('model', b'onnx'); seal('result', b'{\"signature\": {\"inputs\": [7]}}'); say('done', result={})",
        f"seal('model', b'x'); seal('result', b'{RESULT[:-1]}, \"parameters\": -1}}'); say('done', result={{}})",
        "seal('model', b'x'); seal('result', b'[' + b' ' * (64 << 20) + b']'); say('done', result={})",
    ],
)
def test_a_success_without_its_outputs_is_none(run: Run, acme: Deposit, program: str) -> None:
    job = run(program)
    assert (job.state, job.error["code"]) == (State.FAILED, "internal")
    with scope.tenant(acme.id, write=False):
        assert not ModelVersion.objects.exists()
    assert sealed(acme) == ["data"]


def test_an_output_of_another_model_s_key_is_corrupt(run: Run, acme: Deposit) -> None:
    job = run(
        f"seal('model', b'onnx'); wrong = base64.b64encode(bytes(1168)).decode()\n"
        f"seal('result', b'{RESULT}', wrapped_data_key=wrong); say('done', result={{}})"
    )
    assert (job.state, job.error["code"]) == (State.FAILED, "artefact_corrupt")
    assert sealed(acme) == ["data"]


def test_a_version_that_the_process_rejects_is_kept_with_its_reasons(run: Run, acme: Deposit) -> None:
    rejected = "say('done', result={'state': 'rejected', 'reasons': ['worse than the baseline']})"
    job = run(f"seal('model', b'onnx'); seal('result', b'{RESULT}'); {rejected}")
    assert (job.state, job.result["state"]) == (State.SUCCEEDED, "rejected")
    with scope.tenant(acme.id, write=False):
        assert ModelVersion.objects.get().reasons == ["worse than the baseline"]


def test_what_is_kept_unsealed_of_a_result_has_its_own_form_or_is_left_out(run: Run, acme: Deposit) -> None:
    facts = '"weights_sha256": "patient 17", "torch_version": "2.13.0+cpu", "threads": [1]'
    run(f"seal('model', b'onnx'); seal('result', b'{RESULT[:-1]}, {facts}}}'); say('done', result={{}})")
    with scope.tenant(acme.id, write=False):
        lineage = ModelVersion.objects.get().lineage
    assert [lineage[name] for name in ("weights_sha256", "torch_version", "threads")] == [None, "2.13.0+cpu", None]


def test_a_process_that_does_not_hear_a_cancel_is_killed(
    run: Run, acme: Deposit, digits: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = run("sys.exit(3)")
    assert asked.state == State.QUEUED
    Path(process.COMMAND[1]).write_text(HEAD + "say('ready', device='cpu', sandbox='none')\ntime.sleep(60)\n")
    job, attempt = taken()
    with scope.tenant(acme.id):
        Job.objects.filter(id=job.id).update(cancel_requested_at=timezone.now())
    attempts_.see_through(job, attempt, threading.Event(), LEASE_SECONDS)
    assert fresh(job).state == State.CANCELLED
    assert children() == []


def test_a_process_that_does_not_hear_a_drain_is_killed_and_the_job_handed_back(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "DRAIN_SECONDS", 0.5)
    assert run("sys.exit(3)").state == State.QUEUED
    Path(process.COMMAND[1]).write_text(HEAD + "time.sleep(60)\n")
    job, attempt = taken()
    stop = threading.Event()
    stop.set()
    attempts_.see_through(job, attempt, stop, LEASE_SECONDS)
    assert attempts(job) == [(1, "lost"), (2, "drained")]


def test_a_flood_of_lines_is_cut_off_and_the_job_goes_on(run: Run, acme: Deposit) -> None:
    job = run("for _ in range(12000): say('log', level='info', text='x')\nsay('failed', code='diverged', message='m')")
    assert (job.state, job.error["code"]) == (State.FAILED, "diverged")
    with scope.tenant(acme.id, write=False):
        assert 0 < LogLine.objects.count() <= 10_000


def test_texts_of_a_defect_of_ours_are_not_shown(run: Run) -> None:
    job = run("say('failed', code='internal', message='a secret', hint='another')")
    assert job.error["code"] == "internal"
    assert "secret" not in str(job.error)


def test_a_checkpoint_is_kept_with_the_one_before_it(run: Run, acme: Deposit) -> None:
    job = run(
        """
        for step in range(4):
            seal("checkpoint", b"state %d" % step, about={"step": step})
            _, fresh, _, _ = socket.recv_fds(channel, 65536, 1)
            slots.extend(fresh)
        """
    )
    assert attempts(job) == [(1, "lost")]
    with scope.tenant(acme.id, write=False):
        attempt = job.attempts.select_related("checkpoint_artefact", "previous_artefact").get()
        assert attempt.checkpoint_step == 3
        kept = {attempt.checkpoint_artefact_id, attempt.previous_artefact_id}
        there = Artefact.objects.filter(kind="checkpoint", state="sealed").values_list("id", flat=True)
        assert set(there) == kept
        assert len(kept) == 2


def test_where_the_last_checkpoint_is_damaged_the_one_before_it_stands_in(run: Run, acme: Deposit, home: Path) -> None:
    first = run(
        """
        for step in range(2):
            seal("checkpoint", b"state %d" % step, about={"step": step})
            _, fresh, _, _ = socket.recv_fds(channel, 65536, 1)
            slots.extend(fresh)
        """
    )
    with scope.tenant(acme.id, write=False):
        attempt = first.attempts.get()
        previous = attempt.previous_artefact_id
        (home / "objects" / str(acme.id) / str(attempt.checkpoint_artefact_id)).unlink()
        prepared = prepare.prepare(Job.objects.get(id=first.id))
    for slot in prepared.slots:
        slot.discard()
    process.close(prepared.descriptors)
    assert prepared.packet["resume"]["artefact"] == str(previous)


def test_while_the_keys_are_away_a_running_job_goes_on(run: Run, acme: Deposit, home: Path) -> None:
    """Its log waits; its result is taken over when the keys are back."""

    def take_away() -> None:
        while not children():
            time.sleep(0.02)
        (home / "keys").rename(home / "elsewhere")
        keys.forget(acme.id)
        time.sleep(3)
        (home / "elsewhere").rename(home / "keys")

    thread = threading.Thread(target=take_away)
    thread.start()
    job = run(
        f"""
        time.sleep(1)
        say("log", level="info", text="while the keys were away")
        seal("checkpoint", b"state", about={{"step": 1}})
        seal("model", b"onnx")
        slots.extend(socket.recv_fds(channel, 65536, 1)[1])
        seal("result", b'{RESULT}')
        say("done", result={{}})
        """
    )
    thread.join()
    assert job.state == State.SUCCEEDED, job.error
    with scope.tenant(acme.id, write=False):
        assert [line.text for line in LogLine.objects.all()] == ["while the keys were away"]
    assert attempts(job) == [(1, "succeeded")]


def test_a_job_is_granted_no_more_memory_than_the_machine_has(run: Run) -> None:
    tell = (
        "say('failed', code='diverged', message=f\"{os.environ['STRONGROOM_MEMORY_BYTES']} {start['memory_bytes']}\")"
    )
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, told = map(int, run(tell, memory_bytes=2**44).error["message"].split())
    assert 0 < limit == told < machine
    assert run(tell, memory_bytes=2**29).error["message"] == f"{2**29} {2**29}"

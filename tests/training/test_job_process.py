"""`python -m training.run` in the real sandbox: a job's packets, its sealed outputs, and how it says that it failed."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import numpy as np
import pytest

from tests.training.making import archive, npz, picture
from tests.training.worker import Tenant, Worker
from training import tensors

pytestmark = pytest.mark.slow

CHECK = {"kind": "check", "dataset": {"name": "digits", "version": 1}}
PREDICT = {"kind": "predict", "deployment": "digits", "dataset": {"name": "digits", "version": 1}}


def about(format: str, **more: Any) -> dict[str, Any]:
    return {"format": format, "modality": "auto", "target": "label", "fingerprint": "sha256:" + "0" * 64, **more}


def run(worker: Worker, spec: dict[str, Any], format: str, content: bytes, **more: Any) -> dict[str, Any]:
    worker.begin(spec, about(format), {"dataset": (content, "data")})
    return worker.finish(**more)


@pytest.fixture
def tenant() -> Tenant:
    return Tenant()


def test_a_check_says_what_walls_stand_and_seals_the_profile(tenant: Tenant) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    with Worker(tenant) as worker:
        last = run(worker, CHECK, "npz", npz(image=images, label=np.arange(20) % 2))
        ready = worker.of_type("ready")[0]
        assert last == {"type": "done", "result": {"rows": 20}}
        assert ready["pid"] == worker.child.pid
        assert ready["torch_version"].startswith("2.")
        assert "seccomp" in ready["sandbox"]
        profile = json.loads(worker.outputs["profile"])
        assert profile["rows"] == 20
        assert [column["name"] for column in profile["columns"]] == ["image", "label"]
        assert worker.of_type("progress")[-1]["items_total"] == 20


def test_a_check_of_a_hostile_archive_fails_with_code_message_and_hint(tenant: Tenant) -> None:
    with Worker(tenant) as worker:
        last = run(worker, CHECK, "images", archive({"../x.png": picture()}))
        assert last == {
            "type": "failed",
            "code": "zip_entry_outside",
            "message": "entry '../x.png' leaves the archive",
            "hint": "rebuild the archive with relative names",
        }
        assert worker.outputs == {}


def test_an_artefact_that_was_changed_is_named_and_refused(tenant: Tenant) -> None:
    fields, descriptor = tenant.seal(b"a,label\n1,x\n2,y\n", "data")
    os.pwrite(descriptor, b"\x00", fields["stored_bytes"] - 1)
    with Worker(tenant) as worker:
        from tests.training.worker import start_packet

        packet = start_packet(tenant, CHECK, about("csv"), [{"name": "dataset", **fields}])
        worker.send(packet, [descriptor, os.memfd_create("slot"), os.memfd_create("slot")])
        last = worker.finish()
        assert last["code"] == "artefact_corrupt"
        assert fields["artefact"] in last["message"]


@pytest.mark.parametrize(("want", "code"), [("cancel", "cancelled"), ("drain", "drained")])
def test_a_job_that_is_no_longer_wanted_says_so(tenant: Tenant, want: str, code: str) -> None:
    rows = b"".join(b"%d,%d\n" % (row, row % 2) for row in range(300_000))
    with Worker(tenant) as worker:
        worker.begin(CHECK, about("csv"), {"dataset": (b"a,label\n" + rows, "data")})
        worker.send({"type": "control", "want": want})
        assert worker.finish()["code"] == code


def test_a_defect_of_ours_is_internal_and_says_nothing(tenant: Tenant) -> None:
    with tempfile.TemporaryFile() as errors, Worker(tenant, errors=errors.fileno()) as worker:
        last = run(worker, {"kind": "S3CR3T"}, "csv", b"a,label\n1,x\n")
        assert last["code"] == "internal"
        assert last["hint"] is None
        worker.child.process.wait(10)
        errors.seek(0)
        said = errors.read().decode()
        assert "KeyError" in said
        assert "run.py" in said
        assert "S3CR3T" not in said + json.dumps(last)


def test_a_process_whose_parent_hangs_up_ends(tenant: Tenant) -> None:
    with Worker(tenant) as worker:
        worker.child.channel.shutdown(2)
        assert worker.child.process.wait(30) == 1


def test_a_prediction_over_a_data_set_seals_a_line_a_row_in_order(tenant: Tenant) -> None:
    rows = "".join(f"{row},{'ab'[row % 2]}é,{row % 2}\n" for row in range(150))
    seen: list[int] = []

    def answer(packet: dict[str, Any], body: bytes) -> tuple[list[dict[str, Any]], bytes]:
        inputs = tensors.unpack(packet["inputs"], body)
        assert inputs["number"].dtype == np.float32
        assert inputs["text"][0, 0].decode().endswith("é")
        seen.append(len(inputs["number"]))
        lines = np.empty(len(inputs["number"]), dtype=object)
        lines[:] = [json.dumps({"label": str(int(one))}).encode() for one in inputs["number"][:, 0]]
        return tensors.pack({"predictions": lines})

    with Worker(tenant) as worker:
        content = ("number,text,label\n" + rows).encode()
        assert run(worker, PREDICT, "csv", content, answer=answer)["result"] == {"rows": 150}
        lines = worker.outputs["output"].decode().splitlines()
        assert [json.loads(line)["label"] for line in lines] == [str(row) for row in range(150)]
        assert seen == [64, 64, 22]
        assert worker.of_type("progress")[-1] == {"type": "progress", "fraction": 1.0, "items": 150, "items_total": 150}


def test_batches_and_answers_too_long_for_a_packet_go_by_descriptor(tenant: Tenant) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 224, 224), dtype=np.uint8)

    def answer(packet: dict[str, Any], body: bytes) -> tuple[list[dict[str, Any]], bytes]:
        assert "body" not in packet
        image = tensors.unpack(packet["inputs"], body)["image"]
        return tensors.pack({"sum": image.reshape(len(image), -1)[:, :4000].astype(np.float32)})

    with Worker(tenant) as worker:
        last = run(worker, PREDICT, "npz", npz(image=images, label=np.arange(40) % 2), answer=answer)
        assert last["result"] == {"rows": 40}
        lines = worker.outputs["output"].decode().splitlines()
        expected = images.reshape(40, -1)[:, :4000].astype(float).tolist()
        assert [json.loads(line)["outputs"]["sum"] for line in lines] == expected

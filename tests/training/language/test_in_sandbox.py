"""Taking a model in behind the walls of a job: no file is written, none is opened but code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.training.language import making
from tests.training.worker import Tenant

pytestmark = pytest.mark.slow

INSIDE = """
import base64, json, os, sys
from uuid import UUID
import sandbox
told = json.loads(sys.argv[1])
report = sandbox.enter("job-cpu", memory_bytes=told["memory_bytes"])
from sealing import Identity, SealReader
from training.language.importing import take_in
from training.run import explained
reader = SealReader(
    told["descriptor"],
    base64.b64decode(told["data_key"]),
    Identity(UUID(told["tenant"]), UUID(told["artefact"]), "import"),
    header_tag=base64.b64decode(told["header_tag"]),
    stored_bytes=told["stored_bytes"],
)
class Counted:
    size = 0
    def write(self, piece):
        self.size += len(piece)
try:
    write, facts = take_in(reader, told["format"], told["spec"], threads=2, watch=lambda: None)
    counted = Counted()
    write(counted)
    answer = {"card": facts["card"], "size": counted.size}
except Exception as problem:
    answer = {"code": explained(problem)[0], "said": str(problem)}
lines = open("/proc/self/status").read().splitlines()
answer["peak_bytes"] = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps(answer))
sys.stdout.flush()
os._exit(0)
"""


def inside(data: bytes, format: str, wanted: str, memory_bytes: int = 2**30) -> dict[str, Any]:
    tenant = Tenant()
    artefact, descriptor = tenant.seal(data, "import")
    told = {
        **artefact,
        "tenant": str(tenant.id),
        "descriptor": descriptor,
        "format": format,
        "spec": {"weights": wanted, "name": "Tiny"},
        "memory_bytes": memory_bytes,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", INSIDE, json.dumps(told)], stdout=subprocess.PIPE, pass_fds=[descriptor], check=True
        )
    finally:
        os.close(descriptor)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("wanted", ["keep", "q4_0", "bf16"])
def test_a_gguf_file_is_taken_in_behind_the_walls(wanted: str) -> None:
    found = inside(making.model(), "gguf", wanted)
    assert found["size"] == found["card"]["size_bytes"]


def test_a_folder_is_taken_in_behind_the_walls() -> None:
    assert inside(making.folder(), "safetensors-zip", "q4_0")["card"]["type"] == "Q4_0"


def test_a_refusal_keeps_its_code_behind_the_walls() -> None:
    assert inside(b"PK\x03\x04" * 20, "gguf", "keep")["code"] == "gguf_unreadable"


def test_a_real_model_is_held_once() -> None:
    """98 MB come in, 98 or 270 are kept; beside them stand the libraries and a few pieces."""
    data = making.smollm2()
    for wanted, kept in (("keep", 98_362_432), ("bf16", 270_885_952)):
        found = inside(data, "gguf", wanted)
        assert found.get("size") == kept, found
        assert found["peak_bytes"] < kept + 250 * 2**20

"""Nothing of a tenant's is readable outside the memory of who works on it: looked for during and after the work.

Marked words lie in the data as a cell, as a class and as a folder of a zip; the weights are known because the model's
learning rate moves no number. Where they are looked for is in plaintext.py; that it would find them is tested, too.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from PIL import Image

from tests import servers
from tests.journeys import Journey, training, until
from tests.nodes import Node
from tests.security.plaintext import SHARED_MEMORY, Overheard, Scanner, disguises, processes
from tests.spreading import MODES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CELL, CLASS, FOLDER, ENTRY, ASKED = (
    f"{word}-zq{secrets.token_hex(12)}" for word in ("cell", "class", "folder", "entry", "asked")
)
STILL = {"optimizer": {"name": "sgd", "lr": 1e-30}, "checkpoint_seconds": 0.5}
WEIGHTS = """
import onnx
from onnx import numpy_helper
from strongroom.registry import services as registry
from strongroom.vault import services as vault
version = registry.resolve("marked", 1)
graph = onnx.load_model_from_string(vault.read_bytes(version.artefact)).graph
arrays = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
matrix = next(a for a in arrays if a.dtype == "float32" and a.ndim == 2 and a.size >= 64)
answer = [matrix.tobytes()[:64].hex(), matrix.T.tobytes()[:64].hex(), version.lineage["weights_sha256"]]
"""


def scanner_for(*words: str) -> Scanner:
    made = Scanner()
    for word in words:
        made.add(word, word.encode())
    return made


def table() -> bytes:
    """Two classes, one of them marked; a column of words, one of them marked."""
    lines = ["size,kind,label"]
    lines += [
        f"{number / 7:.3f},{CELL if number % 3 else 'plain'},{CLASS if number % 2 else 'other'}"
        for number in range(120)
    ]
    return ("\n".join(lines) + "\n").encode()


def folders(*, outside: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(6):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (number * 30, 9, 9)).save(picture, "PNG")
            for folder in (FOLDER, "other"):
                archive.writestr(f"{folder}/{number}.png", picture.getvalue())
        if outside:
            archive.writestr(f"../{ENTRY}.png", b"x")
    return buffer.getvalue()


@dataclass
class Story:
    """The node while its tenant works, and all that was found so far."""

    house: Journey
    scanner: Scanner
    temporary: Path
    overheard: Overheard
    found: list[str] = field(default_factory=list)
    looks: int = 0

    def look(self, *, servers_too: bool = True) -> None:
        """At everything, now."""
        node, scanner = self.house.node, self.scanner
        self.found += scanner.in_processes(processes(node))
        for folder in (node.folder, self.temporary, SHARED_MEMORY):
            self.found += scanner.in_folder(folder)
        if servers_too:
            self.found += scanner.in_broker(node) + scanner.in_database(node)
        self.looks += 1


@pytest.fixture(scope="module", params=MODES)
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    """Everything that can be done with the marked data, looked at again and again."""
    production = request.param == "production"
    if production and "STRONGROOM_BROKER_URL" not in servers.session_variables():
        pytest.skip("this session has no servers")
    with Node(request.param) as node:
        temporary = node.folder / "tmp"
        temporary.mkdir()
        node.environment["TMPDIR"] = str(temporary)
        scanner = scanner_for(CELL, CLASS, FOLDER, ENTRY, ASKED)
        with Overheard(node) as overheard:
            told = Story(Journey(node), scanner, temporary, overheard)
            told.house.tenant("alpha")
            node.start()
            deposited(told)
            trained(told)
            served(told)
            refused(told)
            told.look()
            assert not any(process.poll() is not None for process in node.processes.values())
            for name in reversed(node.processes):
                node.stop(name)
            told.look()
            told.found += scanner.in_database_log(node)
        yield told


def deposited(story: Story) -> None:
    """An upload that pauses in its middle; then both data sets as they should be."""
    house, data = story.house, table()
    connection = http.client.HTTPConnection("127.0.0.1", house.node.port, timeout=60)
    connection.putrequest("PUT", "/api/v1/datasets/marked/content?format=csv")
    connection.putheader("Authorization", f"Bearer {house.keys['alpha']}")
    connection.putheader("Content-Length", str(len(data) + 5_000_000))
    connection.endheaders()
    connection.send(data + data[: 4_000_000 % len(data)])
    for _ in range(3):
        connection.send(data * (1_200_000 // len(data)))  # more than Django would keep in memory, and a whole segment
    story.look()
    connection.close()
    house.deposit("marked", data)
    shown = house.deposit("folders", folders(), "format=images")
    assert {each["name"] for each in shown["columns"][-1]["classes"]} == {FOLDER, "other"}
    story.look()


def trained(story: Story) -> None:
    """The weights become known by the first model; the second's are the same all the time that it learns."""
    house = story.house
    first = training("marked", dataset="marked", epochs=1, train=STILL)
    house.trained(first)
    rows, columns, sha256 = house.shell("alpha", WEIGHTS)
    story.scanner.add("the weights", bytes.fromhex(rows))
    story.scanner.add("the weights by columns", bytes.fromhex(columns))
    long = house.submit(training("marked", dataset="marked", epochs=5000, train=STILL))
    until(lambda: house.attempts(long) and house.attempts(long)[-1][2], 60)
    story.look()
    done = house.succeeded(long, 240)
    version = house.get(f"/api/v1/models/marked/versions/{done['result']['version']}").json
    assert version["lineage"]["weights_sha256"] == sha256, "the weights moved: they were not what was looked for"
    assert version["signature"]["classes"] == sorted([CLASS, "other"])


def served(story: Story) -> None:
    """Rows, a file and a data set with the marked words, answered at once and later."""
    house = story.house
    house.deployed("marked", "marked")
    rows = [{"size": 1.0, "kind": CELL}, {"size": 2.0, "kind": ASKED}]
    assert house.predict("marked", rows).status == 200
    csv = f"size,kind\n1.0,{ASKED}\n".encode()
    assert house.post("/api/v1/deployments/marked/predict", csv, Content_Type="text/csv").status == 200
    house.node.stop("worker")
    asked = {"deployment": "marked", "rows": rows}
    waiting = house.post("/api/v1/predictions", asked, Idempotency_Key="marked")
    assert waiting.status == 202
    story.look()
    house.node.start("worker")
    path = f"/api/v1/predictions/{waiting.json['id']}"
    done = house.get(path, Prefer="wait=40").json
    assert done["state"] == "succeeded", done
    assert {one["label"] for one in done["output"]["predictions"]} <= {CLASS, "other"}
    whole = house.post("/api/v1/predictions", {"deployment": "marked", "dataset": "marked"}, Prefer="wait=50").json
    assert whole["state"] == "succeeded", whole
    assert CLASS.encode() in house.get(whole["output"]["download"]).body
    story.look()


def refused(story: Story) -> None:
    """What is wrong is told to its tenant, with the marked word, and to nobody else."""
    house = story.house
    outside = house.put("/api/v1/datasets/outside/content?format=images", folders(outside=True), Prefer="wait=50").json
    assert ENTRY in outside["error"]["message"]
    wrong = house.post("/api/v1/deployments/marked/predict", {"inputs": {ASKED: [[1.0]]}})
    assert (wrong.status, ASKED.encode() in wrong.body) == (422, True)
    house.post("/api/v1/deployments/marked/predict", {"rows": [{"size": ASKED, "kind": 1}]})
    later = house.post("/api/v1/predictions", {"deployment": "marked", "rows": [{"size": ASKED}]}, Prefer="wait=30")
    assert later.json["state"] == "failed", later.body
    for body in (f'{{"{ASKED}": 1}}'.encode(), f'{{"rows": "{ASKED}'.encode()):
        assert house.post("/api/v1/jobs", body, Content_Type="application/json").status in (400, 422)


def test_nothing_is_readable_anywhere_during_and_after_the_work(story: Story) -> None:
    assert story.found == []
    assert story.looks >= 7


def test_nothing_was_said_to_the_broker(story: Story) -> None:
    if story.house.node.mode == "embedded":
        pytest.skip("the broker is a folder of the home, which was looked into")
    assert b"strongroom.jobs.wake" in story.overheard.said or b"cpu" in story.overheard.said
    assert story.scanner.in_bytes(story.overheard.said, "what the broker was told") == []


def test_it_was_looked_where_it_matters(story: Story) -> None:
    looked = story.scanner.looked_into
    assert {str(story.house.node.folder), str(story.temporary), str(SHARED_MEMORY)} <= looked
    for name in ("web", "worker"):
        assert f"/proc/{story.house.node.pid(name)}/fd" in looked, f"the descriptors of {name} cannot be read here"
    if story.house.node.mode == "production":
        assert {"database", "database log", "broker"} <= looked


# --- the scanner itself


@pytest.mark.parametrize("form", sorted(disguises(b"a marked word")))
def test_the_scanner_finds_every_disguise_at_every_place(form: str, tmp_path: Path) -> None:
    word = f"word-zq{secrets.token_hex(12)}".encode()
    scanner = scanner_for(word.decode())
    for before in range(4):
        lying = b"\x00" * before + word + b"and more"
        texts: dict[str, Any] = {
            "plain": lying,
            "hex": lying.hex().encode(),
            "HEX": lying.hex().upper().encode(),
            "UTF-16LE": b"xy" + word.decode().encode("utf-16-le"),
            "UTF-16BE": b"xy" + word.decode().encode("utf-16-be"),
        }
        text = texts.get(form, base64.b64encode(lying) if "url" not in form else base64.urlsafe_b64encode(lying))
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / "file").write_bytes(b"x" * 1000 + text)
        assert scanner.in_folder(tmp_path), (form, before)
    (tmp_path / "deep" / "file").write_bytes(b"nothing of it")
    assert scanner.in_folder(tmp_path) == []
    (tmp_path / word.decode()).touch()
    assert scanner.in_folder(tmp_path)


def test_the_scanner_finds_what_a_process_holds(tmp_path: Path) -> None:
    word = f"word-zq{secrets.token_hex(12)}"
    scanner = scanner_for(word)
    path = tmp_path / "held"
    path.write_text(word)
    program = "import sys; held = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    plain = {**os.environ, "NOTHING": "here"}
    for argv, environment, holds in (
        ([program, str(path)], plain, "fd"),
        ([program, os.devnull], {**plain, "WORD": word}, "environ"),
        ([program, os.devnull, word], plain, "cmdline"),
        ([program, os.devnull], plain, None),
    ):
        process = subprocess.Popen(
            [sys.executable, "-c", *argv], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            if holds == "fd":
                path.unlink()  # deleted and still held: as a spooled upload would be
            found = scanner.in_processes([process.pid])
            assert bool(found) is bool(holds), (holds, found)
            assert all(str(holds) in place for place in found)
        finally:
            process.communicate()


def test_the_scanner_finds_what_the_servers_keep(story: Story) -> None:
    node = story.house.node
    if node.mode == "embedded":
        pytest.skip("there is no server")
    word = f"word-zq{secrets.token_hex(12)}"
    scanner = scanner_for(word)
    owner = node.environment["STRONGROOM_OWNER_DATABASE_URL"]
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("CREATE TABLE planted (data bytea)")
        connection.execute("INSERT INTO planted VALUES (%s)", (word.encode(),))
        assert any("in the database" in place for place in scanner.in_database(node))
        assert any("the database's log" in place for place in scanner.in_database_log(node))
        connection.execute("DROP TABLE planted")
    with redis.Redis.from_url(node.environment["STRONGROOM_BROKER_URL"]) as broker, Overheard(node) as overheard:
        broker.lpush("planted", f"before {word}")
        assert scanner.in_broker(node)
        broker.delete("planted")
        until(lambda: scanner.in_bytes(overheard.said, "said"), 5)
    assert scanner.in_broker(node) == []

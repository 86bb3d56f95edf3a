"""The real agent on a real database: cells come, go, die and come back as the deployments say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strongroom.deployments.client import Answer, Engines
from strongroom.errors import StrongroomError
from tests.deployments import deposits
from tests.inference import graphs
from tests.nodes import Node

pytestmark = pytest.mark.slow
ONE = {"x": np.ones((1, 64), "f4")}
SECONDS = 30.0


def ask(node: Node, made: dict[str, str], name: str, *, deadline_ms: int = 30_000) -> Answer:
    async def once() -> Answer:
        engines = Engines(node.home)
        try:
            return await engines.infer(made["tenant"], name, made["version"], ONE, deadline_ms=deadline_ms)
        except StrongroomError as error:
            error.add_note(f"cells: {cells(node)}\nagent's log:\n{node.log('agent')}")
            raise
        finally:
            engines.close()

    return asyncio.run(once())


def until(condition: Callable[[], Any], what: str) -> Any:
    ends = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what} did not happen"
        time.sleep(0.05)
    return found


def cells(node: Node) -> list[dict[str, Any]]:
    """cells.json as the edge reads it."""
    try:
        document = json.loads((Path((node.home / "runtime").read_text()) / "cells.json").read_text())
    except FileNotFoundError:
        return []
    return [dict(cell) for cell in document["cells"]]


def ready(node: Node, tenant: str) -> dict[str, Any]:
    return dict(
        until(lambda: next((c for c in cells(node) if c["tenant"] == tenant and c["state"] == "ready"), None), "ready")
    )


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_agent_loads_serves_switches_and_stops_what_the_rows_say(node: Node) -> None:
    (made,) = deposits.deploy(node, ("acme", "digits"))
    node.start("agent")
    np.testing.assert_allclose(ask(node, made, "digits").outputs["probabilities"], graphs.mlp_expected(ONE["x"]), 1e-4)
    shown = deposits.state(node, "acme", "digits", "ready")
    assert (shown["state"], shown["error"], shown["replica"]) == ("ready", None, "ready")
    assert shown["memory"] > 1 << 20

    (newer,) = deposits.deploy(node, ("acme", "digits"))
    assert newer["version"] != made["version"]
    assert ask(node, newer, "digits").outputs
    only = {"digits": [newer["version"]]}
    until(lambda: ready(node, made["tenant"])["deployments"] == only, "the old one's unloading")

    deposits.stop(node, "acme", "digits")
    assert deposits.state(node, "acme", "digits", "stopped")["state"] == "stopped"
    until(lambda: cells(node) == [], "the cell's end")
    with pytest.raises(StrongroomError) as caught:
        ask(node, newer, "digits", deadline_ms=200)
    assert caught.value.code == "model_loading"


def kill(cell: int) -> None:
    os.kill(cell, signal.SIGKILL)
    until(lambda: not lives(cell), "the cell's end")


def test_each_tenant_has_its_own_process_and_a_killed_one_comes_back_alone(node: Node) -> None:
    ours, theirs = deposits.deploy(node, ("acme", "digits"), ("globex", "digits"))
    node.start("agent")
    first, other = ready(node, ours["tenant"]), ready(node, theirs["tenant"])
    assert first["pid"] != other["pid"]
    with pytest.raises(StrongroomError):
        ask(node, {"tenant": theirs["tenant"], "version": ours["version"]}, "digits", deadline_ms=200)

    kill(first["pid"])
    assert ask(node, ours, "digits").outputs
    again = ready(node, ours["tenant"])
    assert again["pid"] != first["pid"]
    assert ready(node, theirs["tenant"])["pid"] == other["pid"]
    assert deposits.state(node, "acme", "digits", "ready")["state"] == "ready"


def test_a_cell_that_served_comes_back_in_a_moment_however_often_it_is_killed(node: Node) -> None:
    (made,) = deposits.deploy(node, ("acme", "digits"))
    node.start("agent")
    for _ in range(7):
        cell = ready(node, made["tenant"])["pid"]
        kill(cell)
        assert ask(node, made, "digits", deadline_ms=5_000).outputs


def test_what_cannot_be_opened_is_failed_with_its_reason_and_the_neighbours_are_served(node: Node) -> None:
    good, bad, lost = deposits.deploy(node, ("acme", "good"), ("acme", "bad"), ("acme", "lost"))
    path = node.home / "objects" / bad["object"]
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    (node.home / "objects" / lost["object"]).unlink()
    node.start("agent")
    assert ask(node, good, "good").outputs
    assert deposits.state(node, "acme", "bad", "failed")["error"] == "artefact_corrupt"
    assert deposits.state(node, "acme", "lost", "failed")["error"] == "artefact_corrupt"
    with pytest.raises(StrongroomError, match="could not be loaded"):
        ask(node, bad, "bad")


def test_nothing_outlives_the_agent_and_a_new_one_serves_again(node: Node) -> None:
    (made,) = deposits.deploy(node, ("acme", "digits"))
    node.start("agent")
    cell = ready(node, made["tenant"])["pid"]
    below = node.descendants()
    assert cell in below
    node.kill("agent")
    until(lambda: not any(lives(pid) for pid in below), "the end of its processes")
    node.start("agent")
    assert ask(node, made, "digits").outputs
    below = node.descendants()
    assert node.stop("agent") == 0
    assert not (node.home / "runtime").exists()
    until(lambda: not any(lives(pid) for pid in below), "the end of its processes")


def test_a_killed_zygote_takes_its_cells_along_and_both_come_back(node: Node) -> None:
    (made,) = deposits.deploy(node, ("acme", "digits"))
    node.start("agent")
    cell = ready(node, made["tenant"])["pid"]
    zygote = int(Path(f"/proc/{cell}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(zygote, signal.SIGKILL)
    until(lambda: not lives(cell), "the cell's end")
    assert ask(node, made, "digits").outputs


def test_a_second_agent_of_one_home_refuses_and_the_runtime_folder_is_private(node: Node) -> None:
    node.start("agent")
    folder = Path(until(lambda: (p := node.home / "runtime").exists() and p.read_text(), "the runtime folder"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    second = node.manage("agent", check=False)
    assert second.returncode != 0
    assert "an agent runs already" in second.stderr
    assert (node.home / "runtime").read_text() == str(folder)


def test_only_outputs_of_the_tenant_are_opened_for_the_edge(node: Node) -> None:
    made, stranger = deposits.deploy(node, ("acme", "digits"), ("globex", "digits"))
    sealed = node.shell(
        "import json\nfrom strongroom.tenants import scope\nfrom strongroom.vault import services as vault\n"
        f"from uuid import UUID\ntenant = UUID({made['tenant']!r})\n"
        "with scope.tenant(tenant):\n"
        "    rows = [vault.seal_bytes(tenant, kind, b'{}') for kind in ('output', 'model')]\n"
        "    print(json.dumps([str(row.id) for row in rows]))"
    )
    node.start("agent")
    ready(node, made["tenant"])

    async def opened() -> list[dict[str, Any]]:
        folder = Path((node.home / "runtime").read_text())
        reader, writer = await asyncio.open_unix_connection(str(folder / "agent.stream"))
        answers = []
        for tenant, artefact in (
            (made["tenant"], sealed[0]),
            (made["tenant"], sealed[1]),
            (stranger["tenant"], sealed[0]),
        ):
            writer.write(json.dumps({"type": "open", "tenant": tenant, "artefact": artefact}).encode() + b"\n")
            answers.append(json.loads(await reader.readline()))
        writer.write(b"nonsense\n")
        answers.append(json.loads(await reader.readline()))
        writer.close()
        return answers

    key, *refused = asyncio.run(opened())
    assert (key["type"], len(key["data_key"])) == ("key", 44)
    assert [answer["code"] for answer in refused] == ["not_found", "not_found", "malformed_body"]


def test_while_the_keys_are_away_a_deployment_loads_and_once_they_are_back_it_serves(node: Node) -> None:
    (made,) = deposits.deploy(node, ("acme", "digits"))
    (node.home / "keys").rename(node.home / "keys-away")
    node.start("agent")
    with pytest.raises(StrongroomError) as caught:
        ask(node, made, "digits", deadline_ms=1500)
    assert caught.value.code == "model_loading"
    (node.home / "keys-away").rename(node.home / "keys")
    assert ask(node, made, "digits").outputs


def test_other_root_keys_than_the_databases_are_refused_at_the_start(node: Node) -> None:
    deposits.deploy(node, ("acme", "digits"))
    for file in (node.home / "keys").rglob("*.key"):
        file.unlink()
    done = node.manage("agent", check=False)
    assert done.returncode != 0
    assert "root keys" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (node.home / "runtime").exists()

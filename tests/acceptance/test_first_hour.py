"""A newcomer's first hour: one command on an empty home, a model trained, deployed and called, Ctrl-C, and once more.

In embedded mode (SQLite, files) as `make run` starts it, and in production mode on real servers. What is printed is
pasted as a person pastes it. How good the model must be is the one figure here; how quick it must be is the bench's.
"""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.edge.house import House
from tests.journeys import command_line, lives, until
from tests.nodes import ROOT, Node, below
from tests.spreading import MODES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NAMES = {
    *("url", "api_key", "admin_url", "operator_url", "admin_user", "admin_password", "tenant"),
    *("deployment", "model", "version", "dataset", "dataset_version", "job"),
}
READY_SECONDS = 300  # a bound on hanging, not on speed


@dataclass
class Run:
    """One run of `manage.py up --demo`, from its begin to its end by Ctrl-C."""

    demo: dict[str, Any]
    mode: int  # of demo.json
    output: str
    answers: dict[str, Any]  # what was asked while it ran
    exit_code: int
    left: list[str]  # processes that still knew the home afterwards


def run(node: Node) -> Run:
    path = node.home / "demo.json"
    before = path.stat().st_mtime_ns if path.exists() else 0
    log = node.logs / "up.log"
    already = log.stat().st_size if log.exists() else 0
    node.start("up", arguments=["--demo"])
    process = node.processes["up"]

    def ready() -> bool:
        assert process.poll() is None, node.log("up")
        return path.exists() and path.stat().st_mtime_ns != before and "Ctrl-C" in said()

    def said() -> str:
        return log.read_bytes()[already:].decode()

    until(ready, READY_SECONDS, 0.1)
    demo = json.loads(path.read_text())
    answers = asked(node, demo, said())
    exit_code, left = interrupted(node)
    return Run(demo, stat.S_IMODE(path.stat().st_mode), said(), answers, exit_code, left)


def interrupted(node: Node) -> tuple[int, list[str]]:
    """Ctrl-C: the exit code, and what is left of what ran."""
    process = node.processes["up"]
    running = [pid for pid in below(process.pid) if lives(pid)]
    assert len([pid for pid in running if knows(pid, node.home)]) >= 4
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    exit_code = process.wait(40)
    left = [f"{pid} {command_line(pid)}" for pid in running if lives(pid)]
    left += [line for entry in Path("/proc").glob("[0-9]*") if (line := knows(int(entry.name), node.home))]
    return exit_code, left


def begun_and_interrupted(node: Node) -> None:
    """A first try that somebody breaks off in the middle of the training."""
    node.start("up", arguments=["--demo"])
    until(lambda: re.search(r"epoch [1-9]\d*/25", (node.logs / "up.log").read_text()), READY_SECONDS, 0.1)
    assert interrupted(node) == (0, [])
    assert not (node.home / "demo.json").exists()


def knows(pid: int, home: Path) -> str | None:
    """The command line of a living process that was told this home."""
    try:
        told = Path(f"/proc/{pid}/environ").read_bytes()
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return None
    return line if f"STRONGROOM_HOME={home}\0".encode() in told else None


def asked(node: Node, demo: dict[str, Any], said: str) -> dict[str, Any]:
    """Everything that a newcomer would look at."""
    house = House(node)
    house.keys["demo"] = demo["api_key"]
    paths = {
        "version": f"/api/v1/models/{demo['model']}/versions/{demo['version']}",
        "dataset": f"/api/v1/datasets/{demo['dataset']}/versions/{demo['dataset_version']}",
        "job": f"/api/v1/jobs/{demo['job']}",
        "deployment": f"/api/v1/deployments/{demo['deployment']}",
        "jobs": "/api/v1/jobs",
        "tenant": "/api/v1/tenant",
    }
    found = {name: house.get(path, key="demo").json for name, path in paths.items()}
    found["pasted"] = [pasted(line, said) for line in curl_lines(said)]
    found["pages"] = {page: signed_in(demo, page) for page in ("admin_url", "operator_url")}
    found["docs"] = house.get("/docs", key=None)
    return found


def curl_lines(said: str) -> list[str]:
    """Each curl command, over its continued lines."""
    return [match.group().strip() for match in re.finditer(r"^ +curl (?:.*\\\n)*.*$", said, re.MULTILINE)]


def pasted(command: str, said: str) -> Any:
    """What a shell answers to the command, after the `export` that was printed before it."""
    export = next(line.strip() for line in said.splitlines() if line.strip().startswith("export "))
    done = subprocess.run(
        ["bash", "-c", f"{export}\n{command}"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def signed_in(demo: dict[str, Any], page: str) -> tuple[int, str]:
    """Status and address of a panel after its login form was filled in."""
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with browser.open(demo[page], timeout=30) as form:
        address = form.geturl()
        assert "/login/" in address
    token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
    fields = {"username": demo["admin_user"], "password": demo["admin_password"], "csrfmiddlewaretoken": token or ""}
    request = urllib.request.Request(address, urllib.parse.urlencode(fields).encode(), {"Referer": address})  # noqa: S310  # ours
    with browser.open(request, timeout=30) as answer:
        return answer.status, answer.geturl()


@pytest.fixture(scope="module", params=MODES)
def runs(request: pytest.FixtureRequest) -> Iterator[tuple[Node, Run, Run]]:
    """The first run on an empty home, the second on what it left. Embedded, the first is broken off and begun again."""
    if request.param == "production" and "STRONGROOM_BROKER_URL" not in servers.session_variables():
        pytest.skip("this session has no servers")
    with Node(request.param) as node:
        (node.home / "strongroom.sqlite3").unlink(missing_ok=True)
        assert not list(node.home.iterdir()), "the home is not empty"
        if request.param == "embedded":
            begun_and_interrupted(node)
        yield node, run(node), run(node)


Runs = tuple[Node, Run, Run]


def test_demo_json_has_every_name_and_is_for_its_owner_alone(runs: Runs) -> None:
    node, first, _ = runs
    assert set(first.demo) == NAMES
    assert first.mode == 0o600
    assert first.demo["url"] == node.url
    assert (first.demo["tenant"], first.demo["dataset"], first.demo["deployment"]) == ("demo", "digits", "digits")
    assert (first.demo["version"], first.demo["dataset_version"]) == (1, 1)


def test_the_model_is_good_on_rows_that_it_has_not_seen(runs: Runs) -> None:
    _, first, _ = runs
    version = first.answers["version"]
    accuracy = version["metrics"]["test/accuracy"]
    assert accuracy >= 0.94
    assert version["parameters"] == 62_006
    assert (version["state"], version["task"]) == ("ready", "classification")
    assert f"{accuracy:.3f} on the test part" in first.output
    assert version["lineage"]["job"] == first.demo["job"]
    assert version["lineage"]["dataset_fingerprint"] == first.answers["dataset"]["fingerprint"]


def test_the_digits_are_deposited_and_the_training_is_watched(runs: Runs) -> None:
    node, first, _ = runs
    dataset, job = first.answers["dataset"], first.answers["job"]
    assert (dataset["state"], dataset["rows"], dataset["modality"]) == ("ready", 1797, "image")
    assert dataset["columns"][0]["shape"] == [3, 32, 32]
    assert (job["state"], job["attempt"]) == ("succeeded", 2 if node.mode == "embedded" else 1)
    spec = job["spec"]["train"]
    assert (spec["epochs"], spec["batch_size"], spec["loss"]["name"]) == (25, 4, "cross_entropy")
    assert (spec["optimizer"]["name"], spec["optimizer"]["lr"], spec["optimizer"]["momentum"]) == ("sgd", 0.001, 0.9)
    assert re.search(r"training \[.*\] epoch \d+/25 +loss \d\.\d+ +accuracy 0\.\d+", first.output)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_what_is_printed_can_be_pasted(runs: Runs) -> None:
    _, first, second = runs
    for seen in (first, second):
        predicted, jobs = seen.answers["pasted"]
        assert predicted["deployment"] == "digits"
        assert predicted["predictions"][0]["label"] in set("0123456789")
        assert [job["id"] for job in jobs["data"]] == [job["id"] for job in seen.answers["jobs"]["data"]]


def test_the_panels_open_with_the_printed_login(runs: Runs) -> None:
    _, first, second = runs
    for seen in (first, second):
        for page, (status, address) in seen.answers["pages"].items():
            assert (status, address) == (200, seen.demo[page])
            assert seen.demo[page] in seen.output
        assert seen.demo["admin_user"] in seen.output
        assert seen.demo["admin_password"] in seen.output


def test_the_documents_of_the_api_need_nothing_from_outside(runs: Runs) -> None:
    _, first, _ = runs
    page = first.answers["docs"]
    assert page.status == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page.body.decode())
    assert loaded
    assert [address for address in loaded if address.startswith(("http", "//"))] == []


def test_ctrl_c_ends_every_process_and_leaves_nothing(runs: Runs) -> None:
    node, *both = runs
    for seen in both:
        assert seen.exit_code == 0, seen.output
        assert seen.left == []
    assert node.status("/api/v1/health/live") is None
    assert [path for path in node.folder.iterdir() if path not in (node.home, node.logs)] == [], "the runtime folder"


def test_the_logs_tell_of_no_failure(runs: Runs) -> None:
    node, *_ = runs
    for log in (node.home / "logs").glob("*.log"):
        text = log.read_text()
        assert "Traceback" not in text, text[-4000:]
        assert " ERROR " not in text, text[-4000:]


def test_a_second_run_uses_what_is_there(runs: Runs) -> None:
    """Of a run that was broken off, too: its training goes on, there is no second one."""
    _, first, second = runs
    assert second.demo == first.demo
    assert second.answers["version"] == first.answers["version"]
    assert second.answers["dataset"] == first.answers["dataset"]
    assert [job["kind"] for job in second.answers["jobs"]["data"]] == ["train", "check"]
    assert second.answers["deployment"]["id"] == first.answers["deployment"]["id"]
    assert "is there already" in second.output

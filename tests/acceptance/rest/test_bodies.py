"""The page of the native API's bodies (tests/vectors/native_bodies.md), asked for on a running instance.

What a caller sends is sent as it stands there, and every answer must be like its example (page.py). Then come the
sentences between the examples; what needs a crowd or a failure of a service is walked elsewhere (test_deployments.py,
test_limits.py, tests/faults).
"""

from __future__ import annotations

import io
import json
import re
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from strongroom.access.scopes import ORDERED
from strongroom.operations.management.commands.demo import digits
from tests.acceptance.rest.page import PAGE, TEXT, Document, by_kind, differences, form
from tests.acceptance.rest.shapes import problem
from tests.acceptance.rest.test_conventions import with_checksum
from tests.acceptance.rest.test_predictions import age
from tests.edge.house import Answer, network
from tests.edge.house import expected as answer_of_mlp
from tests.journeys import TERMINAL, Journey, lines, row, stream, training, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

API = "/api/v1"
KEY = "demo"  # the tenant of the page, and in Journey the name of its key


class Walk:
    """One tenant's way through the page: each request under a name, what was sent and what was answered."""

    def __init__(self, house: Journey) -> None:
        self.house = house
        self.sent: Document = {}
        self.seen: dict[str, Answer] = {}

    def ask(self, name: str, method: str, path: str, body: Any = None, *, key: str | None = KEY, **headers: Any) -> Any:
        """The body of the answer where it is JSON."""
        address = path if path.startswith("/") else f"{API}/{path}"
        self.sent[name] = body
        self.seen[name] = answer = self.house.call(method, address, body, key=key, **headers)
        return answer.json if answer.headers.get("content-type", "").endswith("json") else None

    def wait(self, name: str, path: str) -> Any:
        """The resource once it is done, however long that takes here."""

        def is_done() -> bool:
            return self.ask(name, "GET", path, Prefer="wait=45")["state"] in (*TERMINAL, "ready")

        until(is_done, 240)
        return self.body(name)

    def keep(self, name: str, document: Any) -> Any:
        """What no HTTP answered."""
        self.seen[name] = Answer(200, {"content-type": "application/json"}, json.dumps(document).encode())
        return document

    def command(self, name: str, *argv: str) -> Any:
        return self.keep(name, json.loads(self.house.node.manage(*argv).stdout))

    def body(self, name: str) -> Any:
        return self.seen[name].json

    def at(self, name: str) -> str:
        """The Location that was answered."""
        answer = self.seen[name]
        assert "location" in answer.headers, (name, answer)
        return answer.headers["location"]


@pytest.fixture(scope="module")
def walk(house: Journey) -> Walk:
    """In an order that works; what takes long is begun early."""
    walk = Walk(house)
    house.keys[KEY] = walk.command("a tenant", "createtenant", "demo", "--owner", "admin@demo.localhost")["api_key"]
    silence = Silence(walk)
    silence.start()
    ask_for_keys(walk)
    deposit(walk)
    begin_jobs(walk)
    bring_models(walk)
    end_jobs(walk)
    follow_training(walk)
    deploy(walk)
    predict(walk)
    predict_later(walk)
    look_around(walk)
    silence.end()
    without_agent(walk)
    return walk


class Silence(threading.Thread):
    """The stream of a job that waits all the time, of a tenant that may run none; listened to in this thread."""

    def __init__(self, walk: Walk) -> None:
        super().__init__(daemon=True)
        self.walk = walk
        self.listens = threading.Event()

    def run(self) -> None:
        walk, house = self.walk, self.walk.house
        made = walk.command("a second tenant", "createtenant", "quiet", "--owner", "admin@demo.localhost")
        house.keys["quiet"] = made["api_key"]
        house.node.manage("limittenant", "quiet", "max_running_jobs=0")
        walk.ask("quiet data", "PUT", "datasets/stones/content?format=csv", STONES, key="quiet", Prefer="wait=50")
        walk.ask("a quiet job", "POST", "jobs", training("quiet", dataset="stones"), key="quiet")
        self.began = time.monotonic()
        self.listens.set()
        walk.ask("a silent stream", "GET", f"{walk.at('a quiet job')}/events", key="quiet")

    def end(self) -> None:
        assert self.listens.wait(60)
        time.sleep(max(0.0, self.began + 16 - time.monotonic()))
        self.walk.ask("its end", "POST", f"{self.walk.at('a quiet job')}/cancel", key="quiet")
        self.join()


def ask_for_keys(walk: Walk) -> None:
    walk.ask("a key", "POST", "keys", PAGE["Create a key"][0])
    walk.ask("the key", "GET", walk.at("a key"))
    owners = walk.ask("the keys", "GET", "keys")["data"][-1]
    walk.ask("the owner's key", "GET", f"keys/{owners['id']}")
    walk.ask("its rotation", "POST", f"{walk.at('a key')}/rotate", {})
    walk.ask("the rotated key", "GET", walk.at("a key"))
    walk.ask("the end of a key", "DELETE", walk.at("its rotation"))
    walk.ask("the end of a key again", "DELETE", walk.at("its rotation"))
    unknown = with_checksum("sr_0000000000_" + "0" * 52)
    for name, given in {"no key": None, "half a key": "sr_short", "an unknown key": unknown}.items():
        walk.ask(name, "GET", "tenant", key=given)
    walk.ask("too narrow a key", "GET", "tenant", key=walk.house.key("predict", tenant=KEY))


def deposit(walk: Walk) -> None:
    images, labels = digits()
    table = npz(features=np.arange(120.0).reshape(40, 3), kind=np.array(["ash", "oak"] * 20))
    slope = b"a,b,label\n" + b"".join(b"%d,%d,%d.5\n" % (n, n % 7, n * 3) for n in range(60))
    path = "datasets/digits/content?format=npz&target=label&modality=image"
    walk.ask("an upload", "PUT", path, npz(image=images, label=labels))
    walk.ask("an upload of numbers", "PUT", "datasets/numbers/content?format=npz&target=kind", table)
    walk.ask("an upload by default", "PUT", "datasets/slope/content?format=csv", slope)
    walk.ask("a bad upload", "PUT", "datasets/climbing/content?format=images", folders(), Prefer="wait=50")
    walk.ask("stones", "PUT", "datasets/stones/content?format=csv", STONES, Prefer="wait=50")
    walk.ask("more stones", "PUT", "datasets/stones/content?format=csv", STONES + b"4.0,smooth,small\n")
    for name in ("stones", "numbers", "slope"):
        walk.wait(f"the newest {name}", f"datasets/{name}")
    walk.wait("the data set", walk.at("an upload"))
    walk.ask("the same bytes", "PUT", path, npz(image=images, label=labels))
    walk.ask("the data sets", "GET", "datasets")
    walk.ask("the end of a data set", "DELETE", "datasets/numbers")
    walk.ask("the ended data set", "GET", "datasets/numbers")
    check = walk.ask("the checks", "GET", "jobs?kind=check&name=digits")["data"][0]
    walk.ask("a check", "GET", f"jobs/{check['id']}")
    walk.ask("the failed checks", "GET", "jobs?kind=check&name=climbing")


STONES = b"radius,texture,label\n" + b"".join(
    b"%d.%d,%s,%s\n" % (n % 9 + 4, n % 10, (b"smooth", b"rough")[n % 2], (b"small", b"large")[n % 9 > 4])
    for n in range(80)
)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def folders() -> bytes:
    """Two pictures, one of which would land outside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a/1.png", "../x.png"):
            archive.writestr(name, picture("PNG"))
    return buffer.getvalue()


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (50, 50), (200, 10, 10)).save(buffer, kind)
    return buffer.getvalue()


def begin_jobs(walk: Walk) -> None:
    """The page's training; beside it one for rows, one for numbers, one that diverges and one that takes long."""
    spec = PAGE["Submit a job"][1]
    walk.ask("a wrong spec", "POST", "jobs", with_train(spec, optimiser={}, optimizer={"name": "sgd", "lr": -0.1}))
    walk.ask("a dry run", "POST", "jobs?dry_run=1", spec)
    walk.ask("a job", "POST", "jobs", spec)
    line = training("slope", dataset="slope", epochs=1, register={"model": "slope", "deploy": "slope"})
    walk.ask("a job for numbers", "POST", "jobs", {**line, "task": "regression"})
    stones = training("stones", dataset="stones", epochs=2, register={"model": "stones", "deploy": "stones"})
    walk.ask("a job for rows", "POST", "jobs", stones)
    wild = with_train(spec, optimizer={"name": "sgd", "lr": 10, "momentum": 0.9})
    walk.ask("a wild job", "POST", "jobs", {**wild, "name": "wild"})
    walk.ask("a long job", "POST", "jobs", training("long", dataset="stones", epochs=100_000))

    def is_running() -> bool:
        job = walk.ask("a running job", "GET", walk.at("a job"))
        assert job["state"] not in TERMINAL, (job, walk.house.logs())
        return job["state"] == "running" and "validation/accuracy" in job["metrics"]

    until(is_running, 60)
    walk.ask("the running jobs", "GET", "jobs?state=running&kind=train&limit=50")
    walk.ask("a deletion too early", "DELETE", walk.at("a job"))


def with_train(spec: Document, **changes: Any) -> Document:
    return {**spec, "train": {**spec["train"], **changes}}


BROUGHT = {"minilm": "embedding", "other": "other", "scores": "classification", "doomed": "embedding"}


def bring_models(walk: Walk) -> None:
    """The page's, one of each other task, one whose answers are the numbers that it is given, and one that is none."""
    files = {"scores": identity(3), "nonsense": b"no protobuf " * 10}
    for seed, (name, task) in enumerate({**BROUGHT, "nonsense": "other"}.items()):
        data = files.get(name) or network(seed)
        file = walk.ask(f"the file of {name}", "PUT", f"models/{name}/content?format=onnx", data)
        spec = {**PAGE["Bring a model"][1], "name": name, "artefact": file["artefact"], "model": name, "task": task}
        classes = ["a", "b", "c"] if name == "scores" else None
        walk.ask(f"the import of {name}", "POST", "jobs", {**spec, "classes": classes})


def identity(width: int) -> bytes:
    """A graph that answers with what it is given."""
    given, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [given], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def end_jobs(walk: Walk) -> None:
    for name in ("a job for rows", "a job for numbers", *(f"the import of {model}" for model in BROUGHT)):
        job = walk.wait(f"{name}, ended", walk.at(name))
        assert job["state"] == "succeeded", (job, walk.house.logs())
    walk.ask("a regression", "GET", "models/slope/versions/1")
    walk.wait("a diverged job", walk.at("a wild job"))
    walk.wait("a refused import", walk.at("the import of nonsense"))
    until(lambda: walk.ask("the long job", "GET", walk.at("a long job"))["progress"], 60)
    walk.ask("a cancellation", "POST", f"{walk.at('a long job')}/cancel")
    walk.ask("a cancellation again", "POST", f"{walk.at('a long job')}/cancel")
    walk.wait("a cancelled job", walk.at("a long job"))
    walk.ask("a retry", "POST", f"{walk.at('a long job')}/retry")
    walk.ask("its cancellation", "POST", f"{walk.at('a retry')}/cancel")
    walk.ask("the end of a job", "DELETE", walk.at("a long job"))
    walk.ask("the end of a model", "DELETE", "models/doomed")
    walk.ask("the ended model", "GET", "models/doomed")


def follow_training(walk: Walk) -> None:
    at, version = walk.at("a job"), "models/lenet-digits/versions/1"
    job = walk.wait("an ended job", at)
    assert job["state"] == "succeeded", (job, walk.house.logs())
    walk.ask("its metrics", "GET", f"{at}/metrics?limit=200")
    log = walk.ask("its log", "GET", f"{at}/logs")["data"]
    walk.ask("its later log", "GET", f"{at}/logs?after={log[0]['id']}")
    walk.ask("its events", "GET", f"{at}/events")
    events = stream(walk.seen["its events"].body)
    walk.keep("its events by kind", by_kind(events))
    walk.ask("its later events", "GET", f"{at}/events", Last_Event_ID=str(events[-2][0]))
    walk.ask("a cancellation too late", "POST", f"{at}/cancel")
    walk.ask("a version", "GET", version)
    walk.ask("the versions", "GET", "models/lenet-digits/versions")
    walk.ask("a version in production", "PATCH", version, PAGE["Model version"][2])
    walk.ask("another change of a version", "PATCH", version, {"state": "ready"})
    walk.ask("a model", "GET", "models/lenet-digits")
    walk.ask("the models", "GET", "models")


CHANGES: Document = {
    "versions": PAGE["Deployment"][0]["versions"],
    "limits": {"requests_per_second": 1000, "concurrency": 8, "deadline_ms": 20_000},
    "batching": {"max_batch": 32, "max_delay_ms": 5},
    "output_policy": {"top_k": 3, "decimals": 4, "scores": True},
}


def deploy(walk: Walk) -> None:
    wanted = PAGE["Deployment"][0]
    walk.ask("a deployment", "POST", "deployments", wanted)
    walk.wait("the deployment", walk.at("a deployment"))
    walk.ask("a deployment waited for", "POST", "deployments", {**wanted, "name": "brief"}, Prefer="wait=50")
    walk.ask("the deployments", "GET", "deployments")
    for name, change in CHANGES.items():
        walk.ask(f"other {name}", "PATCH", "deployments/brief", {name: change})
    for weights in ([], [50], [50, 50]):
        versions = [{**wanted["versions"][0], "weight": weight} for weight in weights]
        walk.ask(f"traffic {weights}", "POST", "deployments", {"name": "odd", "versions": versions})
    walk.ask("the end of a deployment", "DELETE", "deployments/brief")
    walk.ask("the ended deployment", "GET", "deployments/brief")
    for name in ("minilm", "other", "scores"):
        walk.house.deployed(name, name, key=KEY)
    for name in ("stones", "slope"):
        walk.house.ready(KEY, name)


X = {"inputs": {"x": [[0.5] * 64]}}


def predict(walk: Walk) -> None:
    images, array = digits()[0], io.BytesIO()
    np.save(array, images[:3])
    by_rows, by_inputs = PAGE["Predict"][:2]
    raw = {"image/png": picture("PNG"), "image/jpeg": picture("JPEG"), "application/x-npy": array.getvalue()}
    csv = b"texture,radius\nrough,4.5\nsmooth,11\n"
    walk.ask("a prediction by rows", "POST", "deployments/stones/predict", by_rows)
    walk.ask("a prediction by text/csv", "POST", "deployments/stones/predict", csv, Content_Type="text/csv")
    walk.ask("a wrong shape", "POST", "deployments/digits/predict", by_inputs)
    walk.ask("a prediction", "POST", "deployments/digits/predict", {"inputs": {"image": images[:1].tolist()}})
    for kind, data in raw.items():
        walk.ask(f"a prediction by {kind}", "POST", "deployments/digits/predict", data, Content_Type=kind)
    walk.ask("a number", "POST", "deployments/slope/predict", {"rows": [{"a": 1, "b": 2}]})
    walk.ask("a vector", "POST", "deployments/minilm/predict", X)
    walk.ask("other outputs", "POST", "deployments/other/predict", X)
    walk.ask("raw scores", "POST", "deployments/scores/predict", {"inputs": {"x": [[1, 2, 3]]}})
    walk.ask("probabilities", "POST", "deployments/mlp/predict", X, key="alpha")
    walk.ask("a prediction of another tenant's", "POST", "deployments/weather/predict", by_rows)
    walk.ask("a body too large", "POST", "deployments/digits/predict", b" " * (8 * 2**20 + 1))
    # a stop is known everywhere within a second
    until(lambda: walk.ask("a prediction of none", "POST", "deployments/brief/predict", by_inputs)["status"] == 404, 5)


def predict_later(walk: Walk) -> None:
    images = digits()[0]
    one = {**PAGE["Asynchronous prediction"][0], "inputs": {"image": images[:1].tolist()}}
    walk.ask("a prediction that does not fit", "POST", "predictions", PAGE["Asynchronous prediction"][0])
    walk.ask("a later prediction", "POST", "predictions", one)
    done = walk.wait("its answer", walk.at("a later prediction"))
    walk.ask("its job", "GET", f"jobs/job_{done['id'].removeprefix('pred_')}")
    whole = {**one, "inputs": None, "dataset": "digits@1"}
    of_all = walk.ask("a prediction of a data set", "POST", "predictions", whole, Prefer="wait=50")
    walk.ask("its output", "GET", of_all["output"]["download"])
    walk.ask("some at once", "POST", "deployments/digits/predict", {"inputs": {"image": images[:50].tolist()}})
    walk.ask("the predictions", "GET", "predictions")
    walk.ask("a prediction of nothing", "POST", "predictions", {**one, "inputs": None})
    walk.ask("a prediction of two things", "POST", "predictions", {**one, "dataset": "digits@1"})
    walk.wait("a failed prediction", walk.at("a prediction that does not fit"))
    age(walk.house, of_all["id"])
    walk.ask("a prediction after a day", "GET", f"predictions/{of_all['id']}")


def look_around(walk: Walk) -> None:
    walk.ask("live", "GET", "health/live", key=None)
    walk.ask("ready", "GET", "health/ready", key=None)
    walk.ask("the tenant", "GET", "tenant")
    walk.command("an operator", "createoperator", "operator@demo.localhost")
    walk.house.node.manage("demo")  # finds everything there, under the names of the page
    walk.keep("demo.json", json.loads((walk.house.node.home / "demo.json").read_text()))


def without_agent(walk: Walk) -> None:
    """Nothing new is loaded while the agent is away."""
    house, one = walk.house, {"inputs": {"image": digits()[0][:1].tolist()}}
    quick = {**PAGE["Deployment"][0], "name": "unloaded", "limits": {"deadline_ms": 500}}
    house.node.stop("agent")
    try:
        walk.ask("a deployment that waits", "POST", "deployments", quick)
        until(lambda: walk.ask("not loaded", "POST", "deployments/unloaded/predict", one)["status"] != 404, 5)
    finally:
        house.node.start("agent")
        until(lambda: house.post(f"{API}/deployments/mlp/predict", X).status == 200, 60)
        until(lambda: house.predict("weather", [row()]).status == 200, 60)


# --- the examples: where each is sent and where it is answered


@dataclass(frozen=True)
class Row:
    """The example `number` of its section was sent, or answered: with `changes`, where the page says in words what is
    otherwise then. `part` goes into the body: `data/*` is each item of data."""

    number: int
    name: str
    status: int
    headers: Document
    part: str = ""
    to_the_letter: bool = False
    changes: Document = field(default_factory=dict)


def sent(number: int, name: str) -> Row:
    return Row(number, name, 0, {})


def answered(
    number: int,
    name: str,
    status: int = 200,
    headers: Document | None = None,
    /,
    *,
    part: str = "",
    to_the_letter: bool = False,
    **changes: Any,
) -> Row:
    return Row(number, name, status, headers or {}, part, to_the_letter, changes)


def any_of(names: str) -> Document:
    """Changes: whatever these are."""
    return dict.fromkeys(names.split(), ...)


ABSENT = object()
PROBLEM = {"content-type": "application/problem+json"}
WAITED = {"preference-applied": "wait"}
NEW_KEY = {"cache-control": "no-store", "location": "/api/v1/keys/key_…"}
NEW_JOB = {"location": "/api/v1/jobs/job_…"}
LATER = "2026-11-24T22:40:03.000Z"
BY_KEY = PAGE["A job"][0]["created_by"]
RESULT, FAILURE = PAGE["A job"][1].values()
CHECKED, ITEMS = PAGE["Rest"]
SAID = "name format modality target"
FAULT: Document = PAGE["Upload a data set"][2]
BEFORE: Document = {
    **dict.fromkeys(("progress", "worker", "device", "usage", "started_at")),
    "state": "queued",
    "metrics": {},
}
ENDED: Document = {"state": "succeeded", "finished_at": LATER}
FAILED: Document = {**ENDED, **any_of("progress metrics spec"), "state": "failed", "error": FAILURE}
CANCELLED: Document = {**ENDED, "state": "cancelled", "cancel_requested_at": LATER}
LONG: Document = {"name": "long", "spec": ...}
IMPORT: Document = {"kind": "import", "name": "minilm", "metrics": {}, "spec": PAGE["Bring a model"][1]}
WRONG_SHAPE: Document = {**FAILURE, "code": PAGE["Predict"][6]["code"]}
UNANSWERED: Document = dict.fromkeys(("model", "version", "progress", "output"))
NO_NUMBERS: Document = {"metrics": {}, "spec": ...}
MINILM: Document = {**RESULT, "model": "minilm", "metrics": {}}

BODIES: dict[str, list[Row]] = {
    "Error": [answered(0, "a wrong spec", 422, PROBLEM, to_the_letter=True)],
    "Create a key": [
        sent(0, "a key"),
        answered(1, "a key", 201, NEW_KEY, created_by=BY_KEY),
        answered(1, "its rotation", 201, NEW_KEY, created_by=BY_KEY),
        answered(1, "the key", secret=ABSENT, created_by=BY_KEY),
        answered(1, "the owner's key", secret=ABSENT, **any_of("name scopes last_used_at")),
        answered(1, "the keys", part="data/*", secret=ABSENT, **any_of("name scopes last_used_at created_by")),
    ],
    "Upload a data set": [
        answered(0, "an upload", 202, {"location": "/api/v1/datasets/digits/versions/1"}),
        answered(0, "an upload by default", 202, name="slope", format="csv", modality="auto"),
        answered(1, "the data set", 200, WAITED),
        answered(1, "the same bytes"),
        answered(1, "stones", 201, WAITED, name="stones", format="csv", modality="tabular", columns=...),
        answered(1, "the data sets", part="data/*", columns=None, **any_of(SAID), **any_of("state rows error")),
        answered(2, "a bad upload", 201, WAITED, to_the_letter=True),
        answered(0, "a bad upload", 201, name="climbing", state="failed", format="images", modality=..., **FAULT),
    ],
    "Bring a model": [
        answered(0, "the file of minilm", 201),
        sent(1, "the import of minilm"),
    ],
    "Submit a job": [answered(0, "a dry run"), sent(1, "a dry run"), sent(1, "a job")],
    "A job": [
        answered(0, "a job", 202, NEW_JOB, **BEFORE),
        answered(0, "a running job"),
        answered(0, "an ended job", 200, WAITED, result=RESULT, **ENDED),
        answered(0, "a diverged job", 200, WAITED, name="wild", **FAILED),
        answered(0, "a cancellation", 202, NEW_JOB, cancel_requested_at=LATER, **LONG),
        answered(0, "a cancelled job", 200, WAITED, **LONG, **CANCELLED),
        answered(0, "a retry", 202, NEW_JOB, retry_of="job_…", **LONG, **BEFORE),
        answered(0, "the import of minilm", 202, NEW_JOB, **{**IMPORT, **BEFORE}),
        answered(0, "the import of minilm, ended", 200, WAITED, **IMPORT, **ENDED, progress=ITEMS, result=MINILM),
        answered(0, "a check", kind="check", name="digits", progress=ITEMS, result=CHECKED, **NO_NUMBERS, **ENDED),
        answered(0, "the running jobs", part="data/*", spec=ABSENT, **any_of("name progress metrics usage device")),
        answered(1, "an ended job", error=None),
        answered(1, "a diverged job", result=None),
        answered(2, "the running jobs"),
        answered(3, "its metrics", part="data/*"),
        answered(4, "its log", part="data/*"),
        answered(5, "its events by kind"),
    ],
    "Model version": [
        answered(0, "a version"),
        answered(0, "the versions", part="data/*"),
        answered(0, "a version in production", stage="production"),
        answered(1, "a model"),
        answered(1, "the models", part="data/*"),
        sent(2, "a version in production"),
    ],
    "Deployment": [
        sent(0, "a deployment"),
        answered(1, "a deployment", 202, {"location": "/api/v1/deployments/digits"}, **any_of("state")),
        answered(1, "the deployment", 200, WAITED),
        answered(1, "a deployment waited for", 201, WAITED, **any_of("name urls")),
        answered(1, "the deployments", part="data/*", **any_of("name state versions urls")),
        *(answered(1, f"other {name}", **any_of("name urls state limits output_policy")) for name in CHANGES),
        answered(1, "the end of a deployment", 202, state="draining", **any_of("name urls limits output_policy")),
    ],
    "Predict": [
        sent(0, "a prediction by rows"),
        sent(1, "a prediction"),
        sent(1, "a wrong shape"),
        answered(2, "a prediction"),
        answered(2, "a prediction by rows", deployment="stones", model="stones", predictions=...),
        *(answered(2, f"a prediction by {kind}") for kind in ("image/png", "image/jpeg", "application/x-npy")),
        answered(3, "a number", part="predictions"),
        answered(4, "a vector", part="predictions"),
        answered(5, "other outputs", part="predictions"),
        answered(6, "a wrong shape", 422, PROBLEM, to_the_letter=True),
    ],
    "Asynchronous prediction": [
        sent(0, "a prediction that does not fit"),
        sent(0, "a later prediction"),
        answered(1, "a later prediction", 202, {"location": "/api/v1/predictions/pred_…"}),
        answered(2, "its answer", 200, WAITED),
        answered(2, "a failed prediction", 200, WAITED, state="failed", error=WRONG_SHAPE, **UNANSWERED),
        answered(2, "the predictions", part="data/*", **any_of("state model version progress output error")),
        answered(2, "a prediction of a data set", 201, WAITED, **PAGE["Asynchronous prediction"][3]),
        answered(3, "a prediction of a data set", 201),
    ],
    "Health": [answered(0, "live"), answered(1, "ready", status="ok")],
    "demo.json": [answered(0, "demo.json")],
    "Tenant": [answered(0, "the tenant")],
    "Rest": [answered(0, "a check", part="result"), answered(1, "a check", part="progress")],
    "Names of metrics": [answered(0, "a version")],
    "Commands": [answered(0, "a tenant"), answered(0, "a second tenant"), answered(1, "an operator")],
}


def examples_and_rows() -> Iterator[Any]:
    for title, rows in BODIES.items():
        for each in rows:
            done = "answered" if each.status else "sent"
            yield pytest.param(PAGE[title][each.number], each, id=f"{title}, {each.number + 1}: {each.name} {done}")


def test_every_example_of_the_page_is_asked_for() -> None:
    asked = {(title, each.number) for title, rows in BODIES.items() for each in rows}
    assert asked == {(title, number) for title, found in PAGE.items() for number in range(len(found))}


@pytest.mark.parametrize(("example", "asked"), list(examples_and_rows()))
def test_a_body_is_as_on_the_page(walk: Walk, example: Any, asked: Row) -> None:
    if not asked.status:
        assert list(differences([example], walk.sent[asked.name])) == []
        return
    answer = walk.seen[asked.name]
    assert answer.status == asked.status, answer.body
    for name, value in {"content-type": "application/json", **asked.headers}.items():
        assert re.fullmatch(form(value), answer.headers.get(name, "")), (name, answer.headers)
    if asked.changes:
        example = {name: value for name, value in {**example, **asked.changes}.items() if value is not ABSENT}
    found = list(parts(answer.json, asked.part))
    assert found
    if asked.to_the_letter:
        assert {**answer.json, **example, "request_id": None} == {**answer.json, "request_id": None}
    assert [each for one in found for each in differences([example], one)] == []


def parts(body: Any, path: str) -> Iterator[Any]:
    step, _, rest = path.partition("/")
    for value in [body] if not step else body if step == "*" else [body[step]]:
        yield from parts(value, rest) if step else [value]


# --- the sentences between the examples


def refused(walk: Walk, name: str, status: int, code: str) -> Any:
    return problem(walk.seen[name], status, code)


def test_who_is_not_let_in_hears_one_of_three_codes(walk: Walk) -> None:
    refused(walk, "no key", 401, "key_missing")  # WWW-Authenticate is looked at by problem()
    refused(walk, "half a key", 401, "key_malformed")
    refused(walk, "an unknown key", 401, "key_invalid")
    assert refused(walk, "too narrow a key", 403, "scope_missing")["errors"][0]["hint"] == "tenant:read"


def test_a_key_is_shown_without_its_secret_rotated_and_ended(walk: Walk) -> None:
    made, new = walk.body("a key"), walk.body("its rotation")
    assert made["secret"].startswith(made["prefix"] + "_")
    shown = [walk.body("the key"), walk.body("the rotated key"), *walk.body("the keys")["data"]]
    assert [key for key in shown if "secret" in key] == []
    assert (new["id"] != made["id"], new["scopes"]) == (True, made["scopes"])
    assert walk.body("the rotated key")["revoked_at"] is not None, "in the same transaction"
    assert [walk.seen[name].status for name in ("the end of a key", "the end of a key again")] == [204, 204]


def test_lists_are_pages_newest_first(walk: Walk) -> None:
    for name in ("keys", "data sets", "running jobs", "models", "versions", "deployments", "predictions"):
        body = walk.body(f"the {name}")
        assert (set(body), body["has_more"]) == ({"data", "next_cursor", "has_more"}, False), name
        made = [item["created_at"] for item in body["data"]]
        assert made == sorted(made, reverse=True), name


def test_a_data_set_has_versions_and_one_id(walk: Walk) -> None:
    first, second, newest = (walk.body(name) for name in ("stones", "more stones", "the newest stones"))
    assert [body["version"] for body in (first, second, newest)] == [1, 2, 2]
    assert len({body["id"] for body in (first, second, newest)}) == 1
    uploaded, same = walk.body("an upload"), walk.body("the same bytes")
    assert (same["version"], same["fingerprint"]) == (1, uploaded["fingerprint"])


def test_what_the_check_found_is_told(walk: Walk) -> None:
    plain = {**PAGE["Upload a data set"][1]["columns"][1], **any_of("name type unique min max mean classes")}
    columns, warnings = walk.body("stones")["columns"], walk.body("the newest stones")["warnings"]
    assert [(column["type"], list(differences([plain], column))) for column in columns] == [
        ("number", []),
        ("category", []),
        ("category", []),
    ]
    assert [warning["code"] for warning in warnings] == ["duplicate_rows"]
    assert list(differences([PAGE["Upload a data set"][1]["warnings"]], warnings)) == []


def test_an_npz_holds_pictures_or_a_table(walk: Walk) -> None:
    pictures, table = walk.body("the data set"), walk.body("the newest numbers")
    assert (pictures["rows"], pictures["columns"][0]["shape"]) == (1797, [3, 32, 32])
    assert (table["state"], table["modality"], table["target"], table["rows"]) == ("ready", "tabular", "kind", 40)


def test_data_sets_and_models_are_deleted(walk: Walk) -> None:
    for what in ("data set", "model"):
        assert walk.seen[f"the end of a {what}"].status == 204
        refused(walk, f"the ended {what}", 404, "not_found")


def test_a_file_waits_a_day_for_its_import(walk: Walk) -> None:
    left = datetime.fromisoformat(walk.body("the file of minilm")["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=50) < left < timedelta(hours=24)


def test_a_spec_has_every_default_filled_in(walk: Walk) -> None:
    dry, job, given = walk.body("a dry run"), walk.body("a job"), PAGE["Submit a job"][1]
    assert (dry["valid"], dry["spec"], dry["spec_sha256"]) == (True, job["spec"], job["spec_sha256"])
    assert {*given, "modality", "target", "export", "resources"} <= set(job["spec"])
    assert {*given["train"], "deterministic", "early_stop", "checkpoint_seconds"} <= set(job["spec"]["train"])


def test_a_job_counts_from_its_start(walk: Walk) -> None:
    before, ended = walk.body("a job"), walk.body("an ended job")
    assert (before["attempt"], before["metrics"], ended["attempt"]) == (0, {}, 1)
    assert ended["progress"] == {**ended["progress"], "fraction": 1.0, "epoch": 25, "epochs": 25}


def test_a_job_is_cancelled_retried_and_forgotten(walk: Walk) -> None:
    first, again, retry = (walk.body(name) for name in ("a cancellation", "a cancellation again", "a retry"))
    assert walk.seen["a cancellation again"].status == 202
    assert again["cancel_requested_at"] == first["cancel_requested_at"]
    assert (retry["retry_of"], retry["spec"]) == (first["id"], first["spec"])
    assert walk.seen["the end of a job"].status == 204
    refused(walk, "a cancellation too late", 409, "job_finished")
    refused(walk, "a deletion too early", 409, "job_unfinished")


def test_a_job_fails_with_one_of_the_pages_codes(walk: Walk) -> None:
    codes = re.findall(r"`(\w+)`", " ".join(re.findall(r"[Ee]rror codes:? [^.;]*", TEXT)))
    failed = [walk.body("a diverged job"), walk.body("a refused import"), *walk.body("the failed checks")["data"]]
    assert [job["error"]["code"] for job in failed] == ["diverged", "import_refused", "check_failed"]
    assert {job["error"]["code"] for job in failed} <= set(codes)


def test_a_stream_is_resumed_ends_with_the_job_and_is_kept_open_by_comments(walk: Walk) -> None:
    events, later = (stream(walk.seen[name].body) for name in ("its events", "its later events"))
    assert [id for id, _, _ in events] == sorted({id for id, _, _ in events})
    assert (walk.seen["its events"].headers["content-type"], later) == ("text/event-stream", events[-1:])
    silent = walk.seen["a silent stream"].body.decode()
    assert re.search(r'"queued".*^: .*"cancelled"', silent, re.MULTILINE | re.DOTALL), silent


def test_metrics_and_log_are_oldest_first(walk: Walk) -> None:
    points, log = walk.body("its metrics")["data"], walk.body("its log")["data"]
    assert [point["epoch"] for point in points] == sorted(point["epoch"] for point in points)
    assert [line["id"] for line in log] == sorted(line["id"] for line in log)
    assert walk.body("its later log")["data"] == log[1:]


def test_metrics_have_the_pages_names(walk: Walk) -> None:
    names = {point["name"] for point in walk.body("its metrics")["data"]}
    names |= {name for version in ("a version", "a regression") for name in walk.body(version)["metrics"]}
    assert names >= {"train/loss", "validation/loss", "validation/accuracy", "test/accuracy", "test/f1", "test/r2"}
    assert [name for name in names if not re.fullmatch(form("test/loss"), name)] == []


def test_a_version_shows_its_confusion_and_only_its_stage_changes(walk: Walk) -> None:
    version, model = walk.body("a version"), walk.body("a model")
    confusion = np.array(version["evaluation"]["confusion"])
    right = confusion.trace() / confusion.sum()
    assert (confusion.shape, right) == ((10, 10), pytest.approx(version["metrics"]["test/accuracy"]))
    assert (model["latest_version"], model["production_version"]) == (1, 1)
    refused(walk, "another change of a version", 422, "extra_forbidden")
    assert walk.body("a regression")["signature"]["outputs"] == [
        {"name": "value", "datatype": "FP32", "shape": [-1, 1]}
    ]


def test_a_deployment_has_the_pages_defaults_and_all_of_the_traffic(walk: Walk) -> None:
    made, page = walk.body("the deployment"), PAGE["Deployment"][1]
    for name in ("versions", "device", "replicas", "batching", "limits", "output_policy", "urls"):
        assert made[name] == page[name] or made[name].items() >= page[name].items(), name
    for name, change in CHANGES.items():
        assert walk.body(f"other {name}")[name] == change
    for weights in ([], [50], [50, 50]):
        refused(walk, f"traffic {weights}", 422, "invalid_field")
    refused(walk, "the ended deployment", 404, "not_found")


def test_a_prediction_counts_its_items(walk: Walk) -> None:
    items = {"rows": 1, "text/csv": 2, "image/png": 1, "image/jpeg": 1, "application/x-npy": 3}
    bodies = {kind: walk.body(f"a prediction by {kind}") for kind in items}
    assert {kind: body["usage"]["items"] for kind, body in bodies.items()} == items
    assert {kind: len(body["predictions"]) for kind, body in bodies.items()} == items


def test_a_prediction_is_refused_with_its_reason(walk: Walk) -> None:
    refused(walk, "a prediction of none", 404, "not_found")
    refused(walk, "a prediction of another tenant's", 404, "not_found")
    assert str(8 * 2**20) in refused(walk, "a body too large", 413, "body_too_large")["errors"][0]["hint"]
    refused(walk, "not loaded", 503, "model_loading")
    assert walk.seen["not loaded"].headers["retry-after"] == "1"


def test_an_output_that_sums_to_1_is_taken_for_probabilities_and_another_made_to(walk: Walk) -> None:
    """`mlp` ends with a softmax of its own, `scores` with none."""
    shares, raw = (
        list(walk.body(name)["predictions"][0]["scores"].values()) for name in ("probabilities", "raw scores")
    )
    np.testing.assert_allclose(shares, answer_of_mlp(X["inputs"]["x"])[0], atol=1e-5)
    np.testing.assert_allclose(raw, np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum(), atol=1e-5)


def test_a_later_prediction_is_a_job_of_one_thing_and_kept_for_a_day(walk: Walk) -> None:
    done = walk.body("its answer")
    assert (walk.body("its job")["kind"], walk.body("its job")["state"]) == ("predict", "succeeded")
    kept = datetime.fromisoformat(done["expires_at"]) - datetime.fromisoformat(done["finished_at"])
    assert kept == pytest.approx(timedelta(hours=24), abs=timedelta(seconds=5))
    refused(walk, "a prediction after a day", 410, "expired")
    for name in ("a prediction of nothing", "a prediction of two things"):
        refused(walk, name, 422, "invalid_field")


def test_the_output_of_a_data_set_is_lines_in_its_order(walk: Walk) -> None:
    of_all, found = walk.body("a prediction of a data set"), lines(walk.seen["its output"].body)
    assert of_all["output"]["download"] == f"{API}/predictions/{of_all['id']}/output"
    assert of_all["output"]["rows"] == len(found) == 1797
    some = walk.body("some at once")["predictions"]
    assert [one["label"] for one in found[: len(some)]] == [one["label"] for one in some]


def test_demo_json_is_for_its_owner_and_its_names_can_be_pasted(walk: Walk) -> None:
    house, demo = walk.house, walk.body("demo.json")
    assert stat.S_IMODE((house.node.home / "demo.json").stat().st_mode) == 0o600
    paths = [
        f"datasets/{demo['dataset']}/versions/{demo['dataset_version']}",
        f"models/{demo['model']}/versions/{demo['version']}",
        f"deployments/{demo['deployment']}",
        f"jobs/{demo['job']}",
    ]
    assert [house.get(f"{API}/{path}", key=demo["api_key"]).status for path in paths] == [200] * 4
    assert house.get(f"{API}/tenant", key=demo["api_key"]).json["name"] == demo["tenant"]
    assert demo["url"] == house.node.url


def test_a_new_person_gets_a_password_once(walk: Walk) -> None:
    told = [walk.body(name)["password"] for name in ("a tenant", "a second tenant", "an operator")]
    assert [password is not None for password in told] == [True, False, True]
    assert set(walk.body("the owner's key")["scopes"]) == set(ORDERED), "the key that a tenant begins with has all"

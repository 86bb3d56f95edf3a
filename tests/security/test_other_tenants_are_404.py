"""Every route of the API, asked by another tenant with this one's names and ids: as if nothing were there.

The routes are taken from the OpenAPI document, so that one that comes later is walked too; /v1 and /v2 are listed.
What a stranger is told about a thing that exists is byte for byte what is told about one that does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from strongroom import ids
from tests.edge.house import Answer, network
from tests.journeys import Journey, table, until
from tests.nodes import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

V2 = {
    "/v2/models/{name}": ["get"],
    "/v2/models/{name}/ready": ["get"],
    "/v2/models/{name}/infer": ["post"],
    "/v2/models/{name}/versions/{version}": ["get"],
    "/v2/models/{name}/versions/{version}/ready": ["get"],
    "/v2/models/{name}/versions/{version}/infer": ["post"],
}
V1 = {
    "/v1/files": ["get"],
    "/v1/files/{id}": ["get", "delete"],
    "/v1/files/{id}/content": ["get"],
    "/v1/batches": ["get"],
    "/v1/batches/{id}": ["get"],
    "/v1/batches/{id}/cancel": ["post"],
}
FORM = (
    b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="hidden-lines.jsonl"\r\n\r\n{}\r\n--cut--\r\n'
)
ROOMS = {
    "files": "file",
    "batches": "batch",
    "keys": "key",
    "budgets": "key",
    "jobs": "job",
    "predictions": "pred",
    "datasets": "",
    "models": "",
    "deployments": "",
}
OWN = {  # what a stranger makes under a name of its own, whoever else has the name
    ("put", "/api/v1/datasets/{name}/content"),
    ("put", "/api/v1/models/{name}/content"),
    ("post", "/api/v1/models/{name}/adopt"),
}
BUDGET = {"tokens": 1_000_000_000, "period": None}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}


@dataclass
class World:
    """Alpha's things by room, as beta would have to name them, and all of alpha's words."""

    house: Journey
    mine: dict[str, str] = field(default_factory=dict)
    artefact: str = ""

    def value(self, room: str) -> str:
        return self.mine[room]

    def unknown(self, room: str) -> str:
        """A value of the same form and length that nobody has."""
        if ROOMS[room]:
            return ids.text(ROOMS[room], ids.new())
        return self.mine[room][:-1] + "q"

    def words(self) -> set[str]:
        return {*self.mine.values(), self.artefact, "alpha", "hidden-lines"}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Node() as node:
        house = Journey(node)
        house.tenant("alpha")
        house.tenant("beta")
        node.start()
        made = World(house)
        house.serve("alpha", "hidden-net", wait=False)
        made.mine["models"] = made.mine["deployments"] = "hidden-net"
        made.mine["datasets"] = "hidden-table"
        house.deposit("hidden-table", table(40))
        house.ready("alpha", "hidden-net")
        done = house.post(
            "/api/v1/predictions", {"deployment": "hidden-net", "inputs": {"x": [[0.5] * 64]}}, Prefer="wait=30"
        )
        assert done.json["state"] == "succeeded", done.body
        made.mine["predictions"] = done.json["id"]
        made.mine["jobs"] = house.get("/api/v1/jobs?kind=check").json["data"][0]["id"]
        made.mine["keys"] = house.get("/api/v1/keys").json["data"][0]["id"]
        made.mine["budgets"] = made.mine["keys"]
        for subject in ("tenant", made.mine["keys"]):
            budget = house.call("PUT", f"/api/v1/budgets/{subject}", BUDGET)
            assert budget.status in (200, 201), budget.body
        file = house.post("/v1/files", FORM, Content_Type="multipart/form-data; boundary=cut")
        assert file.status == 200, file.body
        made.mine["files"] = file.json["id"]
        asked = {"input_file_id": file.json["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
        batch = house.post("/v1/batches", asked)
        assert batch.status == 200, batch.body
        made.mine["batches"] = batch.json["id"]
        until(lambda: house.get(f"/v1/batches/{batch.json['id']}").json["status"] == "failed")
        made.artefact = house.put("/api/v1/models/hidden-file/content?format=onnx", network()).json["artefact"]
        yield made


def routes(world: World) -> list[tuple[str, str]]:
    """(method, path) of the whole API."""
    schema = world.house.get("/api/v1/schema?format=json", key=None)
    if schema.status != 200:
        schema = world.house.get("/api/v1/schema", key=None)
    paths = {path: [method for method in item if method in METHODS] for path, item in schema.json["paths"].items()}
    return [(method, path) for path, methods in {**paths, **V2, **V1}.items() for method in methods]


METHODS = {"get", "post", "put", "patch", "delete"}


def body_for(method: str, path: str, world: World, room: str, asked: str) -> Any:
    """A body that would be right for alpha, with what is asked for in the place of alpha's name."""
    name = {"models": "", "datasets": "", "deployments": ""} | ({room: asked} if room else {})
    if (method, path) in OWN:
        return network() if "models" in path else table(20, seed=3)
    versions = [{"model": name["models"] or asked, "version": 1, "weight": 100, "mode": "live"}]
    bodies: dict[tuple[str, str], Any] = {
        ("patch", "/api/v1/models/{name}/versions/{version}"): {"stage": "production"},
        ("patch", "/api/v1/deployments/{name}"): {"output_policy": {"top_k": 1}},
        ("post", "/api/v1/deployments/{name}/predict"): {"inputs": {"x": [[0.5] * 64]}},
        ("post", "/api/v1/deployments"): {"name": "borrowed", "versions": versions},
    }
    if path.endswith("/infer"):
        return {"inputs": [TENSOR]}
    if method == "put" and "budgets" in path:
        return BUDGET
    found = bodies.get((method, path))
    return {} if found is None and method in ("post", "patch") else found


def ask(world: World, method: str, path: str, room: str, asked: str, key: str = "beta") -> Answer:
    parameter = re.sub(r"\{(name|id)\}", asked, path).replace("{version}", "1")
    address = re.sub(r"\{[^}]+\}", "1", parameter) + ("?format=onnx" if "models/" in path and method == "put" else "")
    if (method, path) == ("put", "/api/v1/datasets/{name}/content"):
        address += "?format=csv"
    return world.house.call(method.upper(), address, body_for(method, path, world, room, asked), key=key)


def plain(answer: Answer, asked: str) -> tuple[int, dict[str, str], bytes]:
    """All of an answer but the request's id, the clock, and the name that was asked for."""
    headers = {
        name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date", "content-length")
    }
    body = re.sub(rb"req_[0-9a-z]{26}", b"req", answer.body).replace(asked.encode(), b"ASKED")
    return answer.status, headers, body


def room_of(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/v1"):
        return parts[2]
    return "deployments" if path.startswith("/v2") else parts[3] if len(parts) > 3 else ""


def test_every_route_about_a_thing_is_a_404_for_a_stranger(world: World) -> None:
    before = snapshot(world)
    walked = 0
    for method, path in routes(world):
        room = room_of(path)
        if "{" not in path or (method, path) in OWN:
            continue
        mine, unknown = world.value(room), world.unknown(room)
        seen, other = ask(world, method, path, room, mine), ask(world, method, path, room, unknown)
        assert seen.status == 404, (method, path, seen.status, seen.body)
        assert plain(seen, mine) == plain(other, unknown), (method, path)
        told = [word for word in world.words() - {mine} if word.encode() in seen.body]
        assert told == [], (method, path, seen.body)
        walked += 1
    assert walked >= 30, "the walk found few routes"
    assert snapshot(world) == before, "a stranger changed something"


def snapshot(world: World) -> dict[str, Any]:
    """What alpha sees of its own."""
    paths = [
        *("/api/v1/keys", "/api/v1/jobs?kind=check", "/api/v1/datasets", "/api/v1/models", "/api/v1/deployments"),
        *("/v1/files", "/v1/batches", "/api/v1/predictions", f"/api/v1/models/{world.mine['models']}/versions/1"),
    ]
    found = {path: world.house.get(path).json for path in paths}
    for key in found["/api/v1/keys"]["data"]:
        key.pop("last_used_at")
    return found


def test_each_of_these_is_there_for_its_own_tenant(world: World) -> None:
    """Else the walk would prove nothing."""
    for method, path in routes(world):
        if method == "get" and "{" in path:
            room = room_of(path)
            answer = ask(world, method, path, room, world.value(room), key="alpha")
            expected = (404,) if path.endswith("/output") else (200,)  # rows are answered inline: nothing to download
            assert answer.status in expected, (path, answer.body)


def test_every_list_of_a_stranger_is_empty_of_this_tenants(world: World) -> None:
    lists = [path for method, path in routes(world) if method == "get" and "{" not in path and "health" not in path]
    assert {"/api/v1/keys", "/api/v1/jobs", "/api/v1/datasets", "/api/v1/models"} <= set(lists)
    for path in lists:
        answer = world.house.get(path, key="beta")
        # a budget that was not set is none: of this tenant's, whoever else has one
        assert answer.status == (404 if path == "/api/v1/budgets/tenant" else 200), (path, answer.body)
        if path in ("/api/v1/schema",):
            continue
        assert [word for word in world.words() if word.encode() in answer.body] == [], path
    for query in ("jobs?name=hidden-table", "jobs?kind=check", "predictions?state=succeeded"):
        assert world.house.get(f"/api/v1/{query}", key="beta").json["data"] == [], query


def test_a_page_of_this_tenant_opens_no_page_to_a_stranger(world: World) -> None:
    page = world.house.get("/api/v1/jobs?limit=1").json
    assert page["has_more"]
    answer = world.house.get(f"/api/v1/jobs?limit=200&cursor={page['next_cursor']}", key="beta").json
    assert (answer["data"], answer["has_more"]) == ([], False)


def referring(world: World) -> list[tuple[str, str, str, Any]]:
    """(path, alpha's name, one that nobody has, the body with a hole) of every document that names a thing."""
    train = {
        "kind": "train",
        "name": "borrowed",
        "task": "classification",
        "dataset": {"name": "HOLE"},
        "model": {"kind": "catalogue", "name": "mlp"},
    }
    brought = {"kind": "import", "name": "borrowed", "artefact": "HOLE", "model": "borrowed", "task": "other"}
    deployment = {"name": "borrowed", "versions": [{"model": "HOLE", "version": 1, "weight": 100, "mode": "live"}]}
    rows = {"deployment": "HOLE", "inputs": {"x": [[0.5] * 64]}}
    batch = {"input_file_id": "HOLE", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    unknown = world.unknown
    return [
        ("/api/v1/jobs", "hidden-table", unknown("datasets"), train),
        ("/api/v1/jobs?dry_run=1", "hidden-table", unknown("datasets"), train),
        ("/api/v1/jobs", world.artefact, ids.text("art", ids.new()), brought),
        ("/api/v1/deployments", "hidden-net", unknown("models"), deployment),
        ("/api/v1/predictions", "hidden-net", unknown("deployments"), rows),
        ("/api/v1/predictions", "hidden-table", unknown("datasets"), {"deployment": "own", "dataset": "HOLE@1"}),
        ("/v1/batches", world.mine["files"], unknown("files"), batch),
    ]


def test_what_a_document_names_is_not_found_for_a_stranger(world: World) -> None:
    world.house.serve("beta", "own", wait=False, seed=1)
    for path, mine, unknown, hole in referring(world):
        answers = [
            world.house.post(path, json.loads(json.dumps(hole).replace("HOLE", name)), key="beta")
            for name in (mine, unknown)
        ]
        assert answers[0].status in (404, 422), (path, hole, answers[0].body)
        assert plain(answers[0], mine) == plain(answers[1], unknown), (path, hole)


def test_a_stranger_may_have_the_same_names_for_its_own(world: World) -> None:
    first = world.house.get("/api/v1/datasets/hidden-table").json
    for method, path in sorted(OWN):
        if path.endswith("/adopt"):  # needs a public model, and there is none here
            continue
        answer = ask(world, method, path, room_of(path), world.value(room_of(path)))
        assert answer.status in (201, 202), (path, answer.body)
        assert answer.json.get("version", 1) == 1
    assert world.house.get("/api/v1/datasets/hidden-table").json == first
    own = world.house.get("/api/v1/datasets/hidden-table", key="beta").json
    assert own["id"] != first["id"]
    assert own["fingerprint"] != first["fingerprint"]


def test_a_bound_key_of_a_stranger_learns_nothing_either(world: World) -> None:
    """A key that may use `hidden-net` of its own tenant, where there is none."""
    bound = world.house.key("predict", "deployments:read", tenant="beta", allowed_models=["hidden-net"])
    answer = world.house.post("/api/v1/deployments/hidden-net/predict", {"inputs": {"x": [[0.5] * 64]}}, key=bound)
    assert answer.status == 404
    named = world.house.get(
        "/api/v1/tenant", key="beta", X_Strongroom_Tenant=world.house.get("/api/v1/tenant").json["id"]
    )
    assert named.json["name"] == "beta", "a key's tenant follows from the key"

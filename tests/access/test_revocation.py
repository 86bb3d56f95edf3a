"""A key in real processes: made by command, used over HTTP, revoked, gone from every process."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.callers import until
from tests.nodes import Node

pytestmark = pytest.mark.slow


def call(node: Node, method: str, path: str, secret: str, body: Any = None) -> tuple[int, Any]:
    """Over a connection of its own, so that each call may meet another process."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None


def test_a_revocation_reaches_every_process_and_both_faces(node: Node) -> None:
    owner = json.loads(node.manage("createtenant", "acme", "--owner", "owner@acme.test").stdout)["api_key"]
    node.start("web", web_processes="2")
    status, made = call(node, "POST", "/api/v1/keys", owner, {"name": "ci", "scopes": ["predict", "tenant:read"]})
    assert status == 201
    secret = made["secret"]
    paths = ("/api/v1/tenant", "/api/v1/predictions")  # Django's and the edge's
    for _ in range(20):
        assert [call(node, "GET", path, secret)[0] for path in paths] == [200, 200]
    assert call(node, "DELETE", f"/api/v1/keys/{made['id']}", owner)[0] == 204

    def gone() -> bool:
        return all(call(node, "GET", path, secret)[0] == 401 for path in paths * 10)

    assert until(gone)
    assert call(node, "GET", "/api/v1/tenant", owner)[0] == 200


def test_many_requests_at_once_hold_few_connections(node: Node) -> None:
    if node.mode == "embedded":
        pytest.skip("SQLite has files, not connections to a server")
    owner = json.loads(node.manage("createtenant", "acme", "--owner", "owner@acme.test").stdout)["api_key"]
    node.start("web")
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: call(node, "GET", "/api/v1/keys", owner)[0], range(200)))
    assert set(found) == {200}
    with psycopg.connect(node.environment["STRONGROOM_OWNER_DATABASE_URL"]) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [node.database]
        ).fetchone() or (0,)
    assert count <= 40

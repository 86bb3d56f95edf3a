"""Health: live, ready, what is degraded, and serving on while the database is away."""

from __future__ import annotations

import time

import pytest

from tests.edge.house import PREDICT, House
from tests.nodes import Node, _administer

pytestmark = pytest.mark.slow

ROW = [index / 64 for index in range(64)]
CHECKS = ["database", "broker", "store", "root_keys", "sandbox", "row_security", "swap"]


def test_live_and_ready_need_no_key(house: House) -> None:
    live = house.get("/api/v1/health/live", key=None)
    assert (live.status, live.json) == (200, {"status": "ok"})
    ready = house.get("/api/v1/health/ready", key=None)
    assert (ready.status, ready.json["status"]) == (200, "ok")
    assert list(ready.json["checks"]) == CHECKS
    assert {ready.json["checks"][name] for name in ("database", "broker", "store", "root_keys")} == {"ok"}


def test_a_store_that_cannot_be_written_is_degraded_and_still_ready(house: House) -> None:
    import shutil

    objects = house.node.home / "objects"
    aside = objects.with_name("objects-aside")
    objects.rename(aside)
    try:
        time.sleep(1.1)
        answer = house.get("/api/v1/health/ready", key=None)
        assert (answer.status, answer.json["status"]) == (200, "degraded")
        assert answer.json["checks"]["store"] != "ok"
    finally:
        shutil.rmtree(objects, ignore_errors=True)
        aside.rename(objects)


def test_known_keys_and_models_serve_on_while_the_database_is_away_then_503() -> None:
    with Node(settings={"STRONGROOM_STALE_SECONDS": "6"}) as node:
        if node.mode != "production":
            pytest.skip("SQLite's file does not go away")
        house = House(node)
        house.tenant("alpha")
        node.start("web", "agent")
        house.serve("alpha")
        stranger = house.key("predict")
        time.sleep(0.7)  # by now the process has heard of the new key, after which it looks up each key anew
        assert predict(house) == (200, None)
        _administer(f'ALTER DATABASE "{node.database}" ALLOW_CONNECTIONS false')
        _administer(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{node.database}'")  # noqa: S608  # our own name
        went = time.monotonic()
        while time.monotonic() < went + 4:
            assert predict(house) == (200, None)
            time.sleep(0.2)
        assert predict(house, stranger) == (503, "database_unavailable")  # a key that nobody had asked with
        ready = house.get("/api/v1/health/ready", key=None)
        assert (ready.status, ready.json["status"]) == (200, "degraded")
        while (answer := predict(house)) == (200, None):
            assert time.monotonic() < went + 20
            time.sleep(0.2)
        assert answer == (503, "database_unavailable")
        assert house.get("/api/v1/health/ready", key=None).status == 503
        assert house.get("/api/v1/jobs").status == 503
        _administer(f'ALTER DATABASE "{node.database}" ALLOW_CONNECTIONS true')
        while predict(house)[0] != 200:
            assert time.monotonic() < went + 60
            time.sleep(0.2)
        assert predict(house, stranger) == (200, None)


def predict(house: House, key: str = "alpha") -> tuple[int, str | None]:
    answer = house.post(PREDICT, {"inputs": {"x": [ROW]}}, key=key)
    return answer.status, None if answer.status == 200 else answer.code

"""A public base, adopted by two other tenants: their cells map one sealed copy of its weights, and each answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.journeys import Journey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHAT: Any = {
    "model": "chat",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 16,
}
_MAPPED = re.compile(r"^\S+ (\S+) \S+ \S+ (\d+)\s+/memfd:weights", re.MULTILINE)


def cells(house: Journey) -> dict[str, int]:
    """The pid of each tenant's cell, by the id of the tenant."""
    folder = Path((house.node.home / "runtime").read_text().strip())
    found = json.loads((folder / "cells.json").read_text())["cells"]
    return {cell["tenant"]: cell["pid"] for cell in found}


def mapped(pid: int) -> set[tuple[str, str]]:
    """Permissions and inode of the weights that a process maps."""
    return set(_MAPPED.findall(Path(f"/proc/{pid}/maps").read_text()))


def test_two_tenants_map_one_copy_that_neither_can_write(house: Journey) -> None:
    assert house.call("PATCH", "/api/v1/models/smollm2/versions/1", {"public": True}).status == 200
    before = cells(house)
    for tenant in ("gamma", "delta"):
        house.tenant(tenant)
        assert house.post("/api/v1/models/base/adopt", {"public": "alpha/smollm2@1"}, key=tenant).status == 201
        document = {"name": "chat", "versions": [{"model": "base", "version": 1}], "share": True, "context_tokens": 512}
        made = house.post("/api/v1/deployments", document, key=tenant)
        assert made.status == 202, made.body
        assert made.json["share"] is True
        house.ready(tenant, "chat")
        answer = house.post("/v1/chat/completions", CHAT, key=tenant)
        assert answer.status == 200, answer.body
        assert "Paris" in answer.json["choices"][0]["message"]["content"]
    new = [pid for tenant, pid in cells(house).items() if tenant not in before]
    assert len(new) == 2
    one, other = (mapped(pid) for pid in new)
    assert one == other
    assert {permissions for permissions, _ in one} == {"r--s"}
    assert not any(mapped(pid) & one for pid in before.values()), "the owner's own cell did not ask to share"


def test_another_tenants_public_model_gives_no_weights_away(house: Journey) -> None:
    version = house.get("/api/v1/models/base/versions/1", key="gamma").json
    assert version["public"] == "alpha/smollm2@1"
    spec = {"kind": "finetune", "name": "mine", "base": "base", "dataset": {"name": "none"}}
    assert house.post("/api/v1/jobs", spec, key="gamma").status in (404, 422)

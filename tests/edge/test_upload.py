"""PUT …/content against real processes: sealed as it arrives, refused before the first byte, nothing left of a cut."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.edge.house import House, stored_files

pytestmark = pytest.mark.slow

DATASET = "/api/v1/datasets/{}/content?format=csv&target=y"


def test_a_data_set_is_sealed_and_answered_as_the_contract_says(house: House) -> None:
    content = b"x,y\n" + os.urandom(8).hex().encode() + b",1\n"
    answer = house.put(DATASET.format("letters"), content)
    assert answer.status == 202, answer.body
    assert answer.headers["location"] == "/api/v1/datasets/letters/versions/1"
    shown = answer.json
    assert re.fullmatch(r"ds_[0-9a-hjkmnp-tv-z]{26}", shown.pop("id"))
    assert shown.pop("created_at").endswith("Z")
    assert shown.pop("created_by")["kind"] == "key"
    assert shown == {
        "name": "letters",
        "version": 1,
        "state": "checking",
        "format": "csv",
        "modality": "auto",
        "target": "y",
        "size_bytes": len(content),
        "fingerprint": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "rows": None,
        "columns": None,
        "warnings": [],
        "error": None,
    }
    assert not any(content[4:20] in path.read_bytes() for path in stored_files(house.node))


def test_the_same_bytes_again_are_the_same_version(house: House) -> None:
    first = house.put(DATASET.format("twice"), b"x,y\n1,2\n")
    before = set(stored_files(house.node))
    again = house.put(DATASET.format("twice"), b"x,y\n1,2\n")
    assert (first.status, again.status) == (202, 200)
    assert again.json == first.json
    assert set(stored_files(house.node)) == before
    other = house.put(DATASET.format("twice"), b"x,y\n1,3\n")
    assert (other.status, other.json["version"]) == (202, 2)


def test_what_was_sealed_is_what_was_sent_over_many_segments(house: House) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    answer = house.put(DATASET.format("long"), content)
    assert answer.json["size_bytes"] == len(content)
    program = """
import hashlib
from strongroom.datasets import services as datasets
from strongroom.vault import services as vault
answer = hashlib.sha256(vault.read_bytes(datasets.resolve("long").artefact)).hexdigest()
"""
    assert house.shell("alpha", program) == hashlib.sha256(content).hexdigest()


def test_a_chunked_body_without_a_length_is_taken(house: House) -> None:
    pieces = [b"x,y\n", b"1,2\n" * 1000, b"3,4\n"]
    head = f"PUT {DATASET.format('chunked')} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += f"Authorization: Bearer {house.keys['alpha']}\r\nConnection: close\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.node.port), 30) as connection:
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 202 "), answer[:300]
    assert f'"size_bytes":{sum(map(len, pieces))}'.encode() in answer


def test_a_model_file_waits_a_day_for_its_import(house: House) -> None:
    answer = house.put("/api/v1/models/net/content?format=onnx", b"onnx bytes")
    assert answer.status == 201, answer.body
    assert list(answer.json) == ["artefact", "model", "format", "size_bytes", "fingerprint", "expires_at"]
    assert answer.json["artefact"].startswith("art_")
    assert answer.json["fingerprint"] == f"sha256:{hashlib.sha256(b'onnx bytes').hexdigest()}"


@pytest.mark.parametrize(
    ("path", "headers", "status", "code", "problem"),
    [
        ("/api/v1/datasets/d/content?formt=csv", {}, 422, "extra_forbidden", ("?formt", "extra_forbidden")),
        ("/api/v1/datasets/d/content", {}, 422, "invalid_field", ("?format", "missing")),
        ("/api/v1/datasets/d/content?format=xls", {}, 422, "invalid_field", ("?format", "choice")),
        ("/api/v1/datasets/d/content?format=csv&modality=sound", {}, 422, "invalid_field", ("?modality", "choice")),
        ("/api/v1/datasets/d/content?format=csv&format=npz", {}, 422, "invalid_field", ("?format", "repeated")),
        ("/api/v1/datasets/d/content?format=csv&target=", {}, 422, "invalid_field", ("?target", "length")),
        ("/api/v1/datasets/UPPER/content?format=csv", {}, 422, "invalid_field", ("/name", "name")),
        ("/api/v1/models/m/content?format=pickle", {}, 422, "invalid_field", ("?format", "choice")),
        ("/api/v1/datasets/d/content?format=csv", {"Content_Type": "multipart/form-data; boundary=x"}, 415, None, None),
        ("/api/v1/datasets/d/content?format=csv", {"Content_Encoding": "gzip"}, 415, None, None),
    ],
)
def test_each_wrong_upload_is_refused_and_leaves_nothing(
    house: House, path: str, headers: dict[str, str], status: int, code: str | None, problem: Any
) -> None:
    before = set(stored_files(house.node))
    answer = house.put(path, b"x,y\n1,2\n", **headers)
    assert (answer.status, answer.code) == (status, code or "media_type_unsupported")
    assert problem is None or problem in answer.problems
    assert set(stored_files(house.node)) == before


def test_keys_and_scopes_are_checked(house: House) -> None:
    path = DATASET.format("guarded")
    assert house.put(path, b"x", key=None).code == "key_missing"
    refused = house.put(path, b"x", key=house.key("datasets:read"))
    assert (refused.status, refused.code, refused.json["errors"][0]["hint"]) == (403, "scope_missing", "datasets:write")
    assert house.put("/api/v1/models/m/content", b"x", key=house.key("datasets:write")).code == "scope_missing"


def test_a_refusal_comes_before_the_body_is_sent(house: House) -> None:
    head = f"PUT {DATASET.format('early')} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.node.port), 30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_tenants_limits_hold_by_the_told_length_and_while_streaming(house: House) -> None:
    house.tenant("small")
    limit = """
tenant = Tenant.objects.get(id=tenant_id)
tenant.limits = {{"upload_bytes": {upload}, "storage_bytes": {storage}}}
tenant.save()
"""
    house.shell("small", limit.format(upload=100_000, storage=10**9))
    told = house.put(DATASET.format("big"), b"x" * 100_001, key="small")
    assert (told.status, told.code) == (413, "body_too_large")
    assert "100000" in told.json["errors"][0]["hint"]
    head = f"PUT {DATASET.format('big')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    head += f"Authorization: Bearer {house.keys['small']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.node.port), 30) as connection:
        connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (200_000, b"x" * 200_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    house.shell("small", limit.format(upload=10**9, storage=50_000))
    full = house.put(DATASET.format("big"), b"x" * 60_000, key="small")
    assert (full.status, full.code) == (429, "limit_reached")
    assert not [path for path in stored_files(house.node) if path.stat().st_size > 50_000 and "small" in str(path)]


def test_an_upload_that_breaks_off_leaves_nothing(house: House) -> None:
    before = set(stored_files(house.node))
    head = f"PUT {DATASET.format('cut')} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n"
    head += f"Authorization: Bearer {house.keys['alpha']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.node.port), 30) as connection:
        connection.sendall(head.encode() + os.urandom(5_000_000))
        wait_for(lambda: set(stored_files(house.node)) != before)
    wait_for(lambda: set(stored_files(house.node)) == before)
    assert house.get("/api/v1/datasets/cut").status == 404


def wait_for(met: Any, seconds: float = 15) -> None:
    ends = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_the_panels_session_uploads_with_its_csrf_token_only(house: House) -> None:
    program = """
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from strongroom.access.session_store import SessionStore
from strongroom.tenants.models import User
user = User.objects.get(email="owner@alpha.test")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
answer = session.session_key
"""
    session, token = house.shell("alpha", program), "a" * 32
    cookies = {"Cookie": f"sessionid={session}; csrftoken={token}"}
    path = DATASET.format("by-session")
    without = house.put(path, b"x,y\n1,2\n", key=None, **cookies)
    assert (without.status, without.code) == (403, "csrf_failed")
    wrong = house.put(path, b"x,y\n1,2\n", key=None, X_CSRFToken="b" * 32, **cookies)
    assert wrong.code == "csrf_failed"
    done = house.put(path, b"x,y\n1,2\n", key=None, X_CSRFToken=token, **cookies)
    assert done.status == 202, done.body
    assert done.json["created_by"]["kind"] == "member"


def test_large_bodies_for_django_are_413_and_touch_no_file(house: House) -> None:
    told = house.post("/api/v1/jobs", b"x" * 2_097_153, Content_Type="application/json")
    assert (told.status, told.code) == (413, "body_too_large")
    head = "POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    head += f"Authorization: Bearer {house.keys['alpha']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.node.port), 30) as connection:
        for _ in range(4):
            connection.sendall((head.encode() if not _ else b"") + b"%x\r\n%s\r\n" % (700_000, b"x" * 700_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    opened = []
    for path in Path(f"/proc/{house.node.pid('web')}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            opened.append(os.readlink(path))
    assert not [path for path in opened if path.startswith(tempfile.gettempdir()) and "deleted" in path]


@pytest.mark.timeout(300)
def test_a_gigabyte_passes_with_flat_memory(house: House) -> None:
    size, piece = 1 << 30, os.urandom(1 << 20)
    pid = house.node.pid("web")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again from here
    before = peak_bytes(pid)
    head = f"PUT {DATASET.format('gigabyte')} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
    head += f"Authorization: Bearer {house.keys['alpha']}\r\nConnection: close\r\n\r\n"
    sha256 = hashlib.sha256()
    with socket.create_connection(("127.0.0.1", house.node.port), 120) as connection:
        connection.sendall(head.encode())
        for _ in range(size // len(piece)):
            connection.sendall(piece)
            sha256.update(piece)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 202 "), answer[:300]
    assert sha256.hexdigest().encode() in answer
    assert peak_bytes(pid) - before < 24 << 20
    house.call("DELETE", "/api/v1/datasets/gigabyte")


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

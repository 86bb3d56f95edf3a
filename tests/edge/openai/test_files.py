"""/v1/files on real processes: any order of the form; a hostile one is refused in OpenAI's words and leaves nothing."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types import FileDeleted, FileObject

from strongroom import ids
from tests.edge.house import Answer, House, stored_files
from tests.edge.openai.oracle import fits
from tests.nodes import Node
from tests.security.plaintext import Scanner

pytestmark = pytest.mark.slow

BOUNDARY = "xx-boundary-xx"
LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'
CHAT = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n'


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with Node() as node:
        found = House(node)
        found.tenant("alpha")
        found.tenant("beta")
        node.start("web", "agent")
        yield found


def part(name: str, content: bytes, filename: str | None = None, extra: str = "") -> bytes:
    said = f'Content-Disposition: form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return f"--{BOUNDARY}\r\n{said}\r\n{extra}\r\n".encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
PURPOSE, FILE = part("purpose", b"batch"), part("file", LINES, "in.jsonl")


def send(house: House, body: bytes, key: str = "alpha", boundary: str = BOUNDARY, **options: Any) -> Answer:
    return house.post("/v1/files", body, key=key, Content_Type=f"multipart/form-data; boundary={boundary}", **options)


def upload(house: House, purpose: bytes = b"batch", content: bytes = LINES, key: str = "alpha") -> FileObject:
    answer = send(house, part("purpose", purpose) + part("file", content, "in.jsonl") + END, key)
    assert answer.status == 200, (answer.body, house.node.log("web"))
    return fits(FileObject, answer.body)


def refusal(answer: Answer) -> dict[str, Any]:
    assert list(answer.json) == ["error"], answer.body
    found: dict[str, Any] = answer.json["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


def store(house: House) -> set[Path]:
    return set(stored_files(house.node))


def test_a_file_for_a_batch_is_kept_sealed_and_comes_back_as_it_was(house: House) -> None:
    made = upload(house)
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(LINES), "in.jsonl", "batch", "processed")
    assert made.expires_at == made.created_at + 30 * 86_400
    assert not any(LINES[:18] in path.read_bytes() for path in store(house))
    read = house.get(f"/v1/files/{made.id}")
    assert fits(FileObject, read.body) == made
    back = house.get(f"/v1/files/{made.id}/content")
    assert (back.status, back.body) == (200, LINES)
    gone = house.call("DELETE", f"/v1/files/{made.id}")
    assert fits(FileDeleted, gone.body).id == made.id
    assert house.get(f"/v1/files/{made.id}").status == 404
    assert house.get(f"/v1/files/{made.id}/content").status == 404


def test_neither_the_name_nor_the_content_lies_anywhere_in_the_clear(house: House) -> None:
    mark = secrets.token_hex(12)
    scanner = Scanner()
    for word in (f"name-{mark}", f"line-{mark}"):
        scanner.add(word, word.encode())
    content = f'{{"custom_id": "line-{mark}"}}\n'.encode() * 200_000
    assert send(house, PURPOSE + part("file", content, f"name-{mark}.jsonl") + END).status == 200
    assert (
        send(house, part("file", CHAT + content, f"name-{mark}.jsonl") + part("purpose", b"fine-tune") + END).status
        == 200
    )
    assert scanner.in_folder(house.node.folder) + scanner.in_database(house.node) == []


def test_a_file_for_fine_tuning_becomes_a_data_set_with_its_check(house: House) -> None:
    made = upload(house, b"fine-tune", CHAT)
    assert (made.purpose, made.status, made.expires_at) == ("fine-tune", "uploaded", None)
    name = made.id.replace("_", "-")
    version = house.get(f"/api/v1/datasets/{name}")
    assert (version.status, version.json["format"], version.json["state"]) == (200, "chat-jsonl", "checking")
    jobs = house.get(f"/api/v1/jobs?name={name}").json["data"]
    assert [(job["kind"], job["state"]) for job in jobs] == [("check", "queued")]
    refused = house.get(f"/v1/files/{made.id}/content")
    assert (refused.status, refusal(refused)["param"]) == (400, "file_id")
    used = house.call("DELETE", f"/v1/files/{made.id}")
    assert (used.status, refusal(used)["code"]) == (409, "in_use")
    assert house.post(f"/api/v1/jobs/{jobs[0]['id']}/cancel", {}).status == 202
    assert fits(FileObject, house.get(f"/v1/files/{made.id}").body).status == "error"
    assert house.call("DELETE", f"/v1/files/{made.id}").status == 200
    assert house.get(f"/api/v1/datasets/{name}").status == 404


@pytest.mark.parametrize("purpose", [b"batch", b"fine-tune"])
def test_the_file_may_stand_before_its_purpose(house: House, purpose: bytes) -> None:
    content = CHAT * 40_000  # some segments
    before = store(house)
    answer = send(house, part("file", content, "a.jsonl") + part("purpose", purpose) + END)
    assert answer.status == 200, answer.body
    made = fits(FileObject, answer.body)
    assert (made.bytes, made.purpose) == (len(content), purpose.decode())
    assert len(store(house) - before) == 1
    program = f"""
import hashlib
from strongroom.files import services as files
from strongroom.vault import services as vault
file = files.find({made.id!r})
artefact = file.artefact or file.dataset_version.artefact
answer = [artefact.kind, hashlib.sha256(vault.read_bytes(artefact)).hexdigest() == file.sha256]
"""
    assert house.shell("alpha", program) == ["input" if purpose == b"batch" else "data", True]


def test_a_file_ends_when_it_was_told_to(house: House) -> None:
    expiry = part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"3600")
    answer = send(house, PURPOSE + expiry + FILE + END)
    made = fits(FileObject, answer.body)
    assert made.expires_at is not None
    assert made.expires_at - made.created_at in (3599, 3600, 3601)
    program = f"""
from django.utils import timezone
from strongroom.files import services as files
from strongroom.files.models import File
file = files.find({made.id!r})
File.objects.filter(id=file.id).update(expires_at=timezone.now())
"""
    house.shell("alpha", program)
    assert house.get(f"/v1/files/{made.id}").status == 404
    forget = "import json\nfrom strongroom.files import services as files\nprint(json.dumps(files.forget_expired()))"
    assert house.node.shell(forget) == 1
    assert house.node.shell(forget) == 0


def test_a_file_that_ends_takes_no_other_version_of_its_data_set_along(house: House) -> None:
    made = upload(house, b"fine-tune", CHAT)
    name = made.id.replace("_", "-")
    path = f"/api/v1/datasets/{name}"
    second = house.put(f"{path}/content?format=chat-jsonl", CHAT + CHAT)
    assert second.json["version"] == 2
    for job in house.get(f"/api/v1/jobs?name={name}").json["data"]:
        assert house.post(f"/api/v1/jobs/{job['id']}/cancel", {}).status == 202
    assert house.call("DELETE", f"/v1/files/{made.id}").status == 200
    assert house.get(f"{path}/versions/1").status == 404
    assert house.get(path).json["version"] == 2
    assert house.call("DELETE", path).status == 204
    assert house.get(path).status == 404


def test_pages_follow_one_another_in_either_order(house: House) -> None:
    house.tenant("paged")
    made = [upload(house, key="paged").id for _ in range(5)]
    for order, expected in (("asc", made), ("desc", made[::-1])):
        found, after = [], ""
        while True:
            page = house.get(f"/v1/files?limit=2&order={order}{after}", key="paged").json
            found += [file["id"] for file in page["data"]]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert found == expected
    empty = house.get("/v1/files?purpose=batch_output", key="paged").json
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "order=up", "after=file_1", "before=x"])
def test_a_wrong_question_for_a_page_is_named(house: House, query: str) -> None:
    answer = house.get(f"/v1/files?{query}")
    assert (answer.status, refusal(answer)["param"]) == (400, query.partition("=")[0])


def test_another_tenants_file_is_not_there(house: House) -> None:
    made = upload(house)
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        seen = house.call(method, f"/v1/files/{made.id}{path}", key="beta")
        never = house.call(method, f"/v1/files/{ids.text('file', ids.new())}{path}", key="beta")
        assert (seen.status, refusal(seen)) == (404, refusal(never))
    assert made.id not in house.get("/v1/files", key="beta").body.decode()
    assert house.get(f"/v1/files/{made.id}/content").body == LINES


def test_each_purpose_has_its_scope(house: House) -> None:
    asks, learns, reads = house.key("predict"), house.key("datasets:write"), house.key("jobs:read")
    batch, tuning = upload(house, key=asks), upload(house, b"fine-tune", CHAT, key=learns)
    for key, purpose in ((asks, b"fine-tune"), (learns, b"batch")):
        before = store(house)
        refused = send(house, part("purpose", purpose) + FILE + END, key)
        assert (refused.status, refusal(refused)["code"]) == (403, "scope_missing")
        late = send(house, FILE + part("purpose", purpose) + END, key)
        assert (late.status, store(house)) == (403, before)
    for key, mine, other in ((asks, batch, tuning), (learns, tuning, batch)):
        assert house.get(f"/v1/files/{mine.id}", key=key).status == 200
        assert house.get(f"/v1/files/{other.id}", key=key).status == 403
        listed = {file["id"] for file in house.get("/v1/files", key=key).json["data"]}
        assert mine.id in listed
        assert other.id not in listed
    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{batch.id}"), ("DELETE", f"/{batch.id}")):
        assert house.call(method, f"/v1/files{path}", b"" if method == "POST" else None, key=reads).status == 403


def test_a_bound_key_sees_no_prompts_of_others(house: House) -> None:
    open_file = upload(house)
    bound = house.key("predict", allowed_models=["one"])
    own = upload(house, key=bound)
    assert [file["id"] for file in house.get("/v1/files", key=bound).json["data"]] == [own.id]
    answer = house.get(f"/v1/files/{open_file.id}/content", key=bound)
    assert (answer.status, refusal(answer)["code"]) == (403, "model_not_allowed")
    assert house.get(f"/v1/files/{own.id}/content", key=bound).body == LINES


ANCHOR = part("expires_after[anchor]", b"created_at")
HOSTILE: dict[str, tuple[bytes, str | None]] = {
    "no boundary line": (b"hello", None),
    "another boundary": ((PURPOSE + FILE + END).replace(b"xx-boundary-xx", b"yy-boundary-yy"), None),
    "not closed": (PURPOSE + FILE, None),
    "cut in the file": (PURPOSE + FILE[:-20], None),
    "cut in a header": (PURPOSE + FILE[:40], None),
    "empty": (b"", None),
    "closed at once": (END, "purpose"),
    "endless header": (f"--{BOUNDARY}\r\nX: ".encode() + b"a" * 200_000, None),
    "endless header name": (f"--{BOUNDARY}\r\n".encode() + b"a" * 200_000, None),
    "many headers": (f"--{BOUNDARY}\r\n".encode() + b"X: 1\r\n" * 50 + b"\r\n\r\n" + END, None),
    "10,000 fields": (b"".join([part(f"f{n}", b"1") for n in range(10_000)]) + END, None),
    "10,000 purposes": (PURPOSE * 10_000 + FILE + END, None),
    "no name": (f'--{BOUNDARY}\r\nContent-Disposition: form-data; filename="x"\r\n\r\n1\r\n'.encode() + END, None),
    "no disposition": (f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\n1\r\n".encode() + END, None),
    "an attachment": (FILE.replace(b"form-data", b"attachment") + PURPOSE + END, None),
    "the file twice": (PURPOSE + FILE + FILE + END, "file"),
    "no file": (PURPOSE + END, "file"),
    "no purpose": (FILE + END, "purpose"),
    "an empty file": (PURPOSE + part("file", b"", "in.jsonl") + END, "file"),
    "a file that is a field": (PURPOSE + part("file", LINES) + END, "file"),
    "a name with a path": (PURPOSE + part("file", LINES, "../../etc/passwd") + END, "file"),
    "a name with a Windows path": (PURPOSE + part("file", LINES, "a\\\\b") + END, "file"),
    "a name with a null": (PURPOSE + part("file", LINES, "a\0b") + END, "file"),
    "an unknown field": (PURPOSE + part("porpose", b"batch") + FILE + END, "porpose"),
    "a purpose twice": (PURPOSE + PURPOSE + FILE + END, "purpose"),
    "an empty name": (PURPOSE + part("file", LINES, "") + END, "file"),
    "a long name": (PURPOSE + part("file", LINES, "a" * 256) + END, "file"),
    "a name that is not UTF-8": (PURPOSE + FILE.replace(b"in.jsonl", b"\xff\xfe") + END, None),
    "base64": (PURPOSE + part("file", LINES, "a", "Content-Transfer-Encoding: base64\r\n") + END, None),
    "a long purpose": (part("purpose", b"b" * 100_000) + FILE + END, "purpose"),
    "a purpose of OpenAI's": (part("purpose", b"vision") + FILE + END, "purpose"),
    "a purpose of nobody's": (part("purpose", b"\xff") + FILE + END, "purpose"),
    "no seconds": (PURPOSE + ANCHOR + FILE + END, "expires_after[seconds]"),
    "an expiry too soon": (
        PURPOSE + ANCHOR + part("expires_after[seconds]", b"1") + FILE + END,
        "expires_after[seconds]",
    ),
    "an unknown anchor": (
        PURPOSE + part("expires_after[anchor]", b"now") + part("expires_after[seconds]", b"3600") + FILE + END,
        "expires_after[anchor]",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_form_is_refused_and_leaves_nothing(house: House, name: str) -> None:
    body, param = HOSTILE[name]
    before, rows = store(house), house.get("/v1/files").json
    answer = send(house, body)
    assert (answer.status, refusal(answer)["param"]) == (400, param), answer.body
    assert store(house) == before
    assert house.get("/v1/files").json == rows


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 71}"],
)
def test_a_form_without_a_usable_boundary_is_refused(house: House, content_type: str) -> None:
    answer = house.post("/v1/files", PURPOSE + FILE + END, Content_Type=content_type)
    assert (answer.status, refusal(answer)["code"]) == (400, "malformed_header")


def test_what_is_no_form_is_refused(house: House) -> None:
    answer = house.post("/v1/files", {"purpose": "batch"})
    assert (answer.status, refusal(answer)["code"]) == (400, "media_type_unsupported")
    packed = send(house, PURPOSE + FILE + END, Content_Encoding="gzip")
    assert (packed.status, refusal(packed)["code"]) == (400, "media_type_unsupported")


def test_the_tenants_limits_hold_while_the_form_arrives(house: House) -> None:
    house.tenant("small")
    limit = """
tenant = Tenant.objects.get(id=tenant_id)
tenant.limits = {{"upload_bytes": {upload}, "storage_bytes": {storage}}}
tenant.save()
"""
    house.shell("small", limit.format(upload=1000, storage=10**9))
    before = store(house)
    big = PURPOSE + part("file", b"x" * 2000, "in.jsonl") + END
    answer = send(house, big, key="small")
    assert (answer.status, store(house)) == (413, before)
    told = send(house, PURPOSE + part("file", b"x" * 2_000_000, "in.jsonl") + END, key="small")
    assert told.status == 413
    refusal(told)
    house.shell("small", limit.format(upload=10**9, storage=1000))
    full = send(house, big, key="small")
    assert (full.status, refusal(full)["code"]) == (429, "rate_limit_exceeded")
    assert store(house) == before


def test_a_form_that_breaks_off_leaves_nothing(house: House) -> None:
    before = store(house)
    head = _head(house, 50_000_000)
    with socket.create_connection(("127.0.0.1", house.node.port), 30) as connection:
        connection.sendall(head + PURPOSE + FILE[:-20] + os.urandom(5_000_000))
        _until(lambda: store(house) != before)
    _until(lambda: store(house) == before)


def _head(house: House, length: int) -> bytes:
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {house.keys['alpha']}\r\n"
    return (head + f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n").encode()


def _until(holds: Any, seconds: float = 15) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)  # between two looks, until a deadline


def test_a_big_file_passes_in_flat_memory(house: House) -> None:
    size, piece = 150_000_000, b'{"custom_id": "a"}\n' * 5000
    pid = house.node.pid("web")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again from here
    before = _peak_bytes(pid)
    opening = PURPOSE + part("file", b"", "in.jsonl")[:-2]
    count = size // len(piece)
    total = len(opening) + count * len(piece) + 2 + len(END)
    head = _head(house, total)
    with socket.create_connection(("127.0.0.1", house.node.port), 120) as connection:
        connection.sendall(head + opening)
        for _ in range(count):
            connection.sendall(piece)
        connection.sendall(b"\r\n" + END)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:500]
    made = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert made["bytes"] == count * len(piece)
    assert _peak_bytes(pid) - before < 24 << 20
    assert house.call("DELETE", f"/v1/files/{made['id']}").status == 200


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

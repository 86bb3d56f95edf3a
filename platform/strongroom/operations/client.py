"""A small client of our own native API over HTTP, for the demo and the benchmarks: the same door as everybody's."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any


class Refused(RuntimeError):
    """An answer with status ≥ 400: the status and the problem's detail."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        problem = problem.get("error", problem)  # OpenAI's form has it inside
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail') or problem.get('message')}")
        self.status, self.problem = status, problem


class Client:
    """One tenant's key against one server. Blocking; every call has a time-out."""

    def __init__(self, url: str, api_key: str, timeout_seconds: float = 90) -> None:
        self.url, self._key, self._timeout = url, api_key, timeout_seconds

    def call(self, method: str, path: str, body: Any = None, *, wait: int = 0, content_type: str = "") -> Any:
        """The decoded answer, None for an empty one; Refused, OSError."""
        headers = {"Authorization": f"Bearer {self._key}"}
        data = body
        if body is not None and not isinstance(body, bytes):
            data, content_type = json.dumps(body).encode(), "application/json"
        if content_type:
            headers["Content-Type"] = content_type
        if wait:
            headers["Prefer"] = f"wait={wait}"
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)  # noqa: S310  # ours
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310  # http to ourselves
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _problem(error.read())) from None
        return json.loads(text) if text else None

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        """The text of a streamed chat completion as it comes; Refused, OSError."""
        data = json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)  # noqa: S310  # ours
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310  # http to ourselves
                for line in answer:
                    event = line.removeprefix(b"data: ").strip()
                    if event and event != b"[DONE]":
                        chunk = json.loads(event)
                        if "error" in chunk:  # it broke after it had begun
                            raise Refused(200, chunk)
                        for choice in chunk["choices"]:
                            yield choice["delta"].get("content") or ""
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _problem(error.read())) from None

    def find(self, path: str) -> Any:
        """The object, or None where there is none."""
        try:
            return self.call("GET", path)
        except Refused as refused:
            if refused.status in (404, 410):
                return None
            raise


def _problem(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def wait_until_ready(url: str, timeout_seconds: float) -> None:
    """Returns once /health/ready answers 200; TimeoutError."""
    ends = time.monotonic() + timeout_seconds
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{url}/api/v1/health/ready", timeout=2):  # noqa: S310  # http to ourselves
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} was not ready within {timeout_seconds:.0f} s")

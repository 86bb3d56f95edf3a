"""Requests that are right, to be changed by tests, and refusals as the face words them."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom.errors import Invalid
from strongroom.openai import errors, requests
from strongroom.openai.requests import Document

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello"}]} | changes


def saying(*messages: Any) -> dict[str, Any]:
    return chat(messages=list(messages))


def tool(name: str = "weather", **changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": WEATHER} | changes}


def schema(definition: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": definition}}
    return chat(response_format=form)


def refused(model: type[Document], document: Any) -> dict[str, Any]:
    """OpenAI's error of the first problem: message, type, param, code. The status is 400."""
    with pytest.raises(Invalid) as caught:
        requests.read(model, document)
    assert errors.status(caught.value) == 400
    assert 1 <= len(caught.value.errors) <= 20
    found: dict[str, Any] = errors.document(caught.value)["error"]
    assert found["type"] == "invalid_request_error"
    return found

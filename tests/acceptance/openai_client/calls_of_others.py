"""Run by the environment of the other clients, `python calls_of_others.py litellm|langchain`: what each was told, as
JSON. Knows the platform by its address and a key only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

ADDRESS, KEY = os.environ["STRONGROOM_URL"] + "/v1", os.environ["STRONGROOM_KEY"]
QUESTION = [{"role": "user", "content": "Name the capital of France in one sentence."}]
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": CITY}}


def litellm() -> dict[str, Any]:
    import litellm as client

    place: dict[str, Any] = {"api_base": ADDRESS, "api_key": KEY}
    chat = place | {"model": "openai/smollm2", "messages": QUESTION, "max_tokens": 40, "temperature": 0}
    whole = client.completion(**chat)
    chunks = list(client.completion(**chat, stream=True, stream_options={"include_usage": True}))
    choice = {"type": "function", "function": {"name": "weather"}}
    called = client.completion(**chat, tools=[TOOL], tool_choice=choice)
    vectors = client.embedding(model="openai/minilm", input=["a ship", "a boat"], encoding_format="float", **place)
    try:
        client.completion(**(chat | {"model": "openai/nothing"}))
        refused = False
    except client.NotFoundError:
        refused = True
    return {
        "text": whole.choices[0].message.content,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "tokens": whole.usage.total_tokens,
        "streamed_tokens": chunks[-1].usage.total_tokens,
        "called": called.choices[0].message.tool_calls[0].function.name,
        "arguments": called.choices[0].message.tool_calls[0].function.arguments,
        "dimensions": [len(one["embedding"]) for one in vectors.data],
        "refused": refused,
    }


def langchain() -> dict[str, Any]:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from openai import NotFoundError

    place: dict[str, Any] = {"base_url": ADDRESS, "api_key": KEY}
    chat = ChatOpenAI(model="smollm2", temperature=0, max_completion_tokens=40, stream_usage=True, **place)
    whole = chat.invoke(QUESTION)
    chunks = list(chat.stream(QUESTION))
    called = chat.bind_tools([TOOL], tool_choice="weather").invoke(QUESTION)
    shaped = chat.with_structured_output({"title": "City", **CITY}, method="json_schema").invoke(QUESTION)
    vectors = OpenAIEmbeddings(model="minilm", check_embedding_ctx_length=False, **place)
    try:
        ChatOpenAI(model="nothing", **place).invoke(QUESTION)
        refused = False
    except NotFoundError:
        refused = True
    return {
        "text": whole.content,
        "streamed": "".join(chunk.content for chunk in chunks),
        "tokens": whole.usage_metadata["total_tokens"],
        "streamed_tokens": sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata),
        "called": called.tool_calls[0]["name"],
        "arguments": json.dumps(called.tool_calls[0]["args"]),
        "shaped": shaped,
        "dimensions": [len(vector) for vector in vectors.embed_documents(["a ship", "a boat"])],
        "refused": refused,
    }


CLIENTS: dict[str, Callable[[], dict[str, Any]]] = {"litellm": litellm, "langchain": langchain}

if __name__ == "__main__":
    print(json.dumps(CLIENTS[sys.argv[1]]()))

"""The answer of `/v1/responses`: the whole document, and the stream of events that builds it up.

    created, in_progress
      output_item.added, content_part.added, output_text.delta …, output_text.done, content_part.done, output_item.done
      output_item.added, function_call_arguments.delta …, function_call_arguments.done, output_item.done
    completed | incomplete | failed

Each event has its number; the SDK refuses a stream whose items change their identity.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson

from strongroom.errors import StrongroomError
from strongroom.openai.answers import Head, Json, ToolCall, Usage, fresh

Status = Literal["in_progress", "completed", "incomplete", "failed"]
DELTA = "response.output_text.delta"
ARGUMENTS = "response.function_call_arguments.delta"


def response(
    head: Head,
    echo: Json,
    status: Status,
    output: list[Json],
    usage: Usage | None = None,
    error: StrongroomError | None = None,
) -> Json:
    """The whole; `echo` is the request's own part (ResponsesRequest.echo). Incomplete is what ran out of tokens."""
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "status": status,
        "background": False,
        "error": None if error is None else failure(error),
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": output,
        **echo,
        "usage": None if usage is None else usage.of_response(),
    }


def failure(error: StrongroomError) -> Json:
    """In OpenAI's few codes."""
    code = "server_error" if error.status >= 500 else "invalid_prompt"
    return {"code": "rate_limit_exceeded" if error.status == 429 else code, "message": error.detail}


def message(id: str, text: str | None, status: Status) -> Json:
    """An item of text; None where nothing of it is there yet."""
    content = [] if text is None else [part(text)]
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def function_call(id: str, call: ToolCall, status: Status) -> Json:
    return {
        "id": id,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def output(text: str, calls: list[ToolCall], status: Status) -> list[Json]:
    """The items of a whole response: the text, where there is any or nothing else, and the calls."""
    items = [message(fresh("msg"), text, status)] if text or not calls else []
    return items + [function_call(fresh("fc"), call, status) for call in calls]


class Events:
    """One stream. Belongs to one task; keeps what was said, since the last events repeat it whole."""

    def __init__(self, head: Head, echo: Json) -> None:
        self._head, self._echo = head, echo
        self._number = 0
        self._output: list[Json] = []
        self._pieces: list[str] = []
        self._item = ""
        self._call: ToolCall | None = None
        self._before = b""  # of the deltas of the item that is open

    def begin(self) -> bytes:
        started = response(self._head, self._echo, "in_progress", [])
        return self._event("response.created", response=started) + self._event("response.in_progress", response=started)

    def begin_message(self) -> bytes:
        self._open("msg", DELTA, {"content_index": 0, "logprobs": []})
        added = self._item_event("added", message(self._item, None, "in_progress"))
        return added + self._part_event("added", "")

    def text(self, text: str) -> bytes:
        """A piece of the open message."""
        return self._delta(text)

    def end_message(self, status: Status = "completed") -> bytes:
        whole, place = "".join(self._pieces), self._place
        done = self._event("response.output_text.done", content_index=0, text=whole, logprobs=[], **place)
        return done + self._part_event("done", whole) + self._close(message(self._item, whole, status))

    def begin_call(self, call: ToolCall) -> bytes:
        """`call` without its arguments yet."""
        self._call = call
        self._open("fc", ARGUMENTS, {})
        return self._item_event("added", function_call(self._item, call, "in_progress"))

    def arguments(self, text: str) -> bytes:
        """A piece of the open call's JSON."""
        return self._delta(text)

    def end_call(self, status: Status = "completed") -> bytes:
        if self._call is None:
            raise ValueError("no call is open")
        call = ToolCall(self._call.id, self._call.name, "".join(self._pieces))
        done = self._event("response.function_call_arguments.done", arguments=call.arguments, **self._place)
        self._call = None
        return done + self._close(function_call(self._item, call, status))

    def completed(self, usage: Usage) -> bytes:
        return self._end("completed", usage)

    def incomplete(self, usage: Usage) -> bytes:
        """The tokens ran out."""
        return self._end("incomplete", usage)

    def failed(self, error: StrongroomError, usage: Usage | None = None) -> bytes:
        return self._end("failed", usage, error)

    @property
    def _place(self) -> Json:
        return {"item_id": self._item, "output_index": len(self._output)}

    def _open(self, prefix: str, delta: str, fields: Json) -> None:
        self._item, self._pieces = fresh(prefix), []
        before = orjson.dumps({"type": delta, **self._place, **fields})
        self._before = f"event: {delta}\ndata: ".encode() + before[:-1] + b',"delta":'

    def _delta(self, text: str) -> bytes:
        self._pieces.append(text)
        number = self._number
        self._number += 1
        return b'%b%b,"sequence_number":%d}\n\n' % (self._before, orjson.dumps(text), number)

    def _close(self, item: Json) -> bytes:
        done = self._item_event("done", item)
        self._output.append(item)
        return done

    def _item_event(self, what: str, item: Json) -> bytes:
        return self._event(f"response.output_item.{what}", output_index=len(self._output), item=item)

    def _part_event(self, what: str, text: str) -> bytes:
        return self._event(f"response.content_part.{what}", content_index=0, part=part(text), **self._place)

    def _end(self, status: Status, usage: Usage | None, error: StrongroomError | None = None) -> bytes:
        whole = response(self._head, self._echo, status, self._output, usage, error)
        return self._event(f"response.{status}", response=whole)

    def _event(self, name: str, **fields: Any) -> bytes:
        document = {"type": name, **fields, "sequence_number": self._number}
        self._number += 1
        return f"event: {name}\ndata: ".encode() + orjson.dumps(document) + b"\n\n"

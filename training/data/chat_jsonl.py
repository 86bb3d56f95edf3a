"""Examples for a language model as JSON Lines: conversations, or preferences between two answers, OpenAI's layouts.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    {"input": {"messages": […]}, "preferred_output": [{"role": "assistant", …}], "non_preferred_output": […]}

One shape a file, decided by its first row. A row is a line; refusals name it by its number. Every key and role that is
not known is refused: what would be learned is exactly what is read. Knows no tokens and no template.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sealing import SealReader
from training.data.limits import LIMITS
from training.data.source import Source, buffered
from training.errors import DataRefused
from training.spec.problems import nearest

FORMAT = "chat-jsonl"
MODALITY = "text"
ROLES = ("system", "developer", "user", "assistant", "tool")
MOST_ROWS = 1_000_000
MOST_MESSAGES = 512  # of one row
_EXAMPLE = 'such as {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
_QUESTIONS = ("input", "prompt")  # OpenAI's name, and the one that TRL has for it
_OPTIONS: dict[str, Any] = {
    "tools": [],
    "functions": [],
    "parallel_tool_calls": None,
}  # a key, and the value that asks for nothing

Shape = Literal["messages", "preferences"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """`is_learned`: an assistant's message that is not excluded by OpenAI's `weight` 0."""

    role: str
    content: str
    is_learned: bool

    def plain(self) -> dict[str, str]:
        """As a chat template reads it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Ends with the assistant."""

    row: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Preference:
    """A question, the answer that is preferred to it and the one that is not."""

    row: int
    question: tuple[Message, ...]
    preferred: Message
    other: Message


@dataclass(frozen=True, slots=True)
class Conversations:
    """The whole data set; either list is empty."""

    conversations: list[Conversation]
    preferences: list[Preference]

    @property
    def shape(self) -> Shape:
        return "preferences" if self.preferences else "messages"

    @property
    def rows(self) -> int:
        return len(self.conversations) + len(self.preferences)


def load(reader: SealReader, about: Mapping[str, Any]) -> Conversations:
    """The whole data set; DataRefused. `about` has the modality that it was declared as."""
    if (wanted := about.get("modality") or "auto") not in ("auto", MODALITY):
        hint = f"upload it with modality={MODALITY} or modality=auto"
        what = f"the data set is declared as {wanted} and holds {MODALITY}"
        raise DataRefused(what, hint, code="modality_mismatch")
    return parse(reader.file())


def parse(file: Source) -> Conversations:
    """The same over any seekable file of bytes: the bytes decide between a data set and a coded refusal."""
    found = Conversations([], [])
    for row, document in _documents(file):
        shape = _shape(row, document)
        if found.rows and shape != found.shape:
            raise _refused(row, f"holds {shape}, the first row {found.shape}", "upload two data sets", "jsonl_shape")
        if shape == "messages":
            found.conversations.append(_conversation(row, document))
        else:
            found.preferences.append(_preference(row, document))
        if found.rows > MOST_ROWS:
            raise DataRefused(f"there are over {MOST_ROWS} rows", "split the data set", code="too_many_rows")
    if not found.rows:
        raise DataRefused("there is no row in the file", f"write one a line, {_EXAMPLE}", code="no_rows")
    return found


def _refused(row: int, problem: str, hint: str, code: str) -> DataRefused:
    return DataRefused(f"row {row} {problem}", hint, code=code)


# ---- lines


def _documents(file: Source) -> Iterator[tuple[int, Json]]:
    file.seek(0)
    lines = buffered(file, 2**20)
    row = 0
    while line := lines.readline(LIMITS.line_bytes + 1):
        row += 1
        if len(line) > LIMITS.line_bytes:
            raise _refused(
                row, f"is longer than {LIMITS.line_bytes} bytes", "end rows by a line end", "jsonl_line_too_long"
            )
        if row == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield row, _document(row, line)


def _document(row: int, line: bytes) -> Json:
    try:
        text = line.decode()
    except UnicodeDecodeError as problem:
        what = f"is not UTF-8, from its byte {problem.start + 1} on"
        raise _refused(row, what, "save the file as UTF-8", "jsonl_encoding") from None
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        hint = "a row is one JSON object on one line" + (", without a comma behind it" if row == 1 else "")
        raise _refused(
            row, f"is not JSON: {problem.msg} at character {problem.pos + 1}", hint, "jsonl_syntax"
        ) from None
    except RecursionError:
        raise _refused(row, "is nested too deeply", _EXAMPLE, "jsonl_syntax") from None
    except ValueError as problem:  # of ours, or a number with thousands of digits
        raise _refused(row, f"is not JSON: {str(problem)[:120]}", _EXAMPLE, "jsonl_syntax") from None
    if not isinstance(document, dict):
        raise _refused(row, f"is {_kind(document)}, not an object", _EXAMPLE, "jsonl_row")
    return document


def _object(pairs: list[tuple[str, Any]]) -> Json:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {_shown(name)} is there twice")
            seen.add(name)
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(name: object) -> str:
    text = str(name)
    return ascii(text if len(text) <= 60 else text[:59] + "…")


# ---- rows


def _shape(row: int, document: Json) -> Shape:
    if "messages" in document:
        return "messages"
    if any(name in document for name in _QUESTIONS):
        return "preferences"
    _check_keys(row, "", document, ("messages", "input", "preferred_output", "non_preferred_output"))
    raise _refused(row, "has no messages", f"write rows {_EXAMPLE}", "no_messages")


def _conversation(row: int, document: Json) -> Conversation:
    _check_keys(row, "", document, ("messages",))
    messages = _messages(row, "messages", document["messages"])
    last = messages[-1]
    if last.role != "assistant":
        hint = "end each row with the answer to be learned, of the role assistant"
        raise _refused(row, f"ends with a message of the role {last.role}", hint, "no_answer")
    if messages[0].role == "assistant":
        hint = "put what is answered before the answer"
        raise _refused(row, "begins with an answer", hint, "no_question")
    if not any(message.is_learned for message in messages):
        raise _refused(row, "has no answer that is not of weight 0", "leave the row out", "no_answer")
    return Conversation(row, messages)


def _preference(row: int, document: Json) -> Preference:
    key = next(name for name in _QUESTIONS if name in document)
    _check_keys(row, "", document, (key, "preferred_output", "non_preferred_output"))
    question = document[key]
    if not isinstance(question, dict) or "messages" not in question:
        raise _refused(row, f"has no messages in its {key}", f'{key} is {{"messages": […]}}', "no_messages")
    _check_keys(row, f" in its {key}", question, ("messages",))
    messages = tuple(
        Message(message.role, message.content, False)
        for message in _messages(row, f"{key}.messages", question["messages"])
    )
    if messages[-1].role == "assistant":
        hint = "leave the answers to preferred_output and non_preferred_output"
        raise _refused(row, f"ends its {key} with an answer", hint, "no_question")
    preferred, other = (_answer(row, document, name) for name in ("preferred_output", "non_preferred_output"))
    if preferred.content == other.content:
        raise _refused(row, "prefers an answer to itself", "leave the row out", "same_answers")
    return Preference(row, messages, preferred, other)


def _answer(row: int, document: Json, name: str) -> Message:
    messages = _messages(row, name, document.get(name))
    if len(messages) != 1 or messages[0].role != "assistant":
        raise _refused(row, f"has not exactly one answer in {name}", f"{name} is a list of one message", "no_answer")
    return messages[0]


def _check_keys(row: int, where: str, document: Json, known: tuple[str, ...]) -> None:
    for name, value in document.items():
        if name in known:
            continue
        if name in _OPTIONS:
            if value in (_OPTIONS[name], None) or name == "parallel_tool_calls":
                continue
            raise _refused(row, f"has {name}{where}, which are not learned", "leave rows with tools out", "tools")
        meant = nearest(name, known)
        hint = f"did you mean {meant!r}?" if meant else f"known: {', '.join(known)}"
        raise _refused(row, f"has the unknown key {_shown(name)}{where}", hint, "unknown_key")


def _messages(row: int, name: str, value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        what = "has no" if value in (None, []) else f"has {_kind(value)} as"
        raise _refused(row, f"{what} {name}", f"{name} is a list of messages, {_EXAMPLE}", "no_messages")
    if len(value) > MOST_MESSAGES:
        what = f"has {len(value)} messages"
        raise _refused(row, what, f"{MOST_MESSAGES} are the most; make several rows of it", "too_many_messages")
    return tuple(_message(row, f"{name}[{place}]", message) for place, message in enumerate(value))


def _message(row: int, name: str, value: object) -> Message:
    if not isinstance(value, dict):
        hint = 'a message is {"role": "…", "content": "…"}'
        raise _refused(row, f"has {_kind(value)} as {name}", hint, "message")
    role = value.get("role")
    if role not in ROLES:
        meant = nearest(role, ROLES) if isinstance(role, str) else None
        hint = f"did you mean {meant!r}?" if meant else f"one of {', '.join(ROLES)}"
        what = "has no role" if role is None else f"has the unknown role {_shown(role)}"
        raise _refused(row, f"{what} in {name}", hint, "unknown_role")
    _check_keys(row, f" in {name}", value, ("role", "content", *(("weight",) if role == "assistant" else ())))
    weight = value.get("weight", 1)
    if weight not in (0, 1) or isinstance(weight, bool):
        raise _refused(row, f"has the weight {_shown(weight)} in {name}", "1 learns the answer, 0 does not", "weight")
    return Message(role, _content(row, name, value.get("content")), role == "assistant" and weight == 1)


def _content(row: int, name: str, value: object) -> str:
    if not isinstance(value, str):
        what = "has no content" if value is None else f"has {_kind(value)} as content"
        raise _refused(row, f"{what} in {name}", "content is a text", "content")
    if not value.strip():
        raise _refused(row, f"has an empty content in {name}", "leave the message or the row out", "content")
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        what = f"has half a character in {name}: {ascii(value[problem.start])[1:-1]} alone"
        raise _refused(row, what, "correct the escape, or leave it out", "content") from None
    return value


# ---- profile


def profile(data: Conversations) -> Json:
    """The content of the artefact `profile`: a column for each part of a row, its numbers being characters."""
    texts: dict[str, Callable[[Any], list[str]]]
    if data.shape == "messages":
        rows: list[Any] = list(data.conversations)
        texts = {"messages": lambda row: [message.content for message in row.messages]}
    else:
        rows = list(data.preferences)
        texts = {
            "input": lambda row: [message.content for message in row.question],
            "preferred_output": lambda row: [row.preferred.content],
            "non_preferred_output": lambda row: [row.other.content],
        }
    columns = [_column(name, [said(row) for row in rows]) for name, said in texts.items()]
    return {"rows": data.rows, "modality": MODALITY, "columns": columns, "warnings": list(_warnings(rows))}


def _column(name: str, texts: list[list[str]]) -> Json:
    lengths = [sum(map(len, parts)) for parts in texts]
    return {
        "name": name,
        "type": MODALITY,
        "shape": None,
        "missing": 0,
        "unique": len({_digest(parts) for parts in texts}),
        "min": min(lengths),
        "max": max(lengths),
        "mean": round(sum(lengths) / len(lengths), 6),
        "classes": None,
    }


def _digest(parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def digest(row: Conversation | Preference) -> bytes:
    """The same for rows that say the same."""
    if isinstance(row, Conversation):
        return _digest(row.messages)
    return _digest((row.question, row.preferred, row.other))


def _warnings(rows: list[Conversation | Preference]) -> Iterator[Json]:
    again = len(rows) - len({digest(row) for row in rows})
    if again:
        verb = "rows repeat" if again > 1 else "row repeats"
        yield {"code": "duplicate_rows", "column": None, "message": f"{again} {verb} an earlier one"}


__all__ = ["FORMAT", "Conversation", "Conversations", "Message", "Preference", "digest", "load", "parse", "profile"]

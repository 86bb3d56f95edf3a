"""What a job's process says, read as if it were hostile: bounded, typed, and nothing in it but what the contract
names.

A packet is one JSON object of at most 64 KiB (docs/formats/processes.md). Knows no database.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

PACKET_BYTES = 64 * 1024
TEXT_CHARACTERS = 4096
LEVELS = ("debug", "info", "warning", "error")
PROGRESS = ("fraction", "epoch", "epochs", "step", "steps", "eta_seconds", "items", "items_total")
METRIC = re.compile(r"(train|validation|test)/(loss|accuracy|f1|r2|perplexity|margin)")  # a bound, too
CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
OUTPUTS = ("checkpoint", "model", "result", "profile", "output")


class Unreadable(ValueError):
    """The packet is not one of the contract's: the process is treated as crashed."""


@dataclass(frozen=True, slots=True)
class Ready:
    device: str
    sandbox: str


@dataclass(frozen=True, slots=True)
class Progress:
    shown: Mapping[str, float | int | None]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Line:
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Sealed:
    kind: str
    artefact: UUID
    header_tag: bytes
    wrapped_data_key: bytes
    size_bytes: int
    step: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a data set to predict; `content` is the whole packet, its tensors may ride along as descriptors."""

    content: Mapping[str, Any]
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    code: str
    message: str
    hint: str | None


Packet = Ready | Progress | Line | Sealed | Batch | Done | Failed


def parse(data: bytes, descriptors: tuple[int, ...] = ()) -> Packet:
    """One packet; Unreadable."""
    try:
        content = orjson.loads(data)  # strict: no NaN, no lone surrogate
        if not isinstance(content, dict):
            raise Unreadable("a packet must be an object")
        return _parse(content, descriptors)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:  # binascii.Error is one
        raise Unreadable(type(error).__name__) from None


def _parse(content: dict[str, Any], descriptors: tuple[int, ...]) -> Packet:
    match content["type"]:
        case "ready":
            return Ready(_text(content["device"], 20), _text(content["sandbox"], 120))
        case "progress":
            return _progress(content)
        case "log":
            level = content["level"]
            return Line(level if level in LEVELS else "info", _text(content["text"]))
        case "sealed":
            return _sealed(content)
        case "batch":
            return Batch(content, descriptors)
        case "done":
            if not isinstance(content["result"], dict):
                raise Unreadable("result")
            return Done(content["result"])
        case "failed":
            code, hint = content["code"], content.get("hint")
            if not CODE.fullmatch(code):
                raise Unreadable("code")
            return Failed(code, _text(content["message"]), None if hint is None else _text(hint))
    raise Unreadable("type")


def _text(value: Any, limit: int = TEXT_CHARACTERS) -> str:
    if not isinstance(value, str):
        raise Unreadable("text")
    return value.replace("\x00", "")[:limit]


def _progress(content: dict[str, Any]) -> Progress:
    shown = {name: _number(content[name]) for name in PROGRESS if content.get(name) is not None}
    shown |= {name: None for name in PROGRESS if name in content and content[name] is None}
    given = content.get("metrics") or {}
    return Progress(shown, metrics(given))


def metrics(given: Mapping[str, Any]) -> dict[str, float]:
    """The named numbers of the contract; NaN and infinity are left out (JSON has none)."""
    found = {name: float(value) for name, value in given.items() if METRIC.fullmatch(name)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable("number")
    return value if math.isfinite(value) else None


def _sealed(content: dict[str, Any]) -> Sealed:
    kind, size, step = content["kind"], content["size_bytes"], (content.get("about") or {}).get("step")
    if kind not in OUTPUTS or type(size) is not int or size < 0 or not (step is None or type(step) is int):
        raise Unreadable("sealed")
    header_tag = base64.b64decode(content["header_tag"], validate=True)
    wrapped = base64.b64decode(content["wrapped_data_key"], validate=True)
    if len(header_tag) != 32 or len(wrapped) > 4096:
        raise Unreadable("sealed")
    return Sealed(kind, UUID(content["artefact"]), header_tag, wrapped, size, step)
